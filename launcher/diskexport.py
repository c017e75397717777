"""A data disk as a file of its own elsewhere, and the way back: whole or not at all, and no larger than what is in it.

Where both lie on one file system that can share blocks it takes no time and no space; elsewhere qemu-img copies what is
allocated (qemu-img(1), convert), which reads all tables by the way and leaves out what snapshots keep.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from launcher import diskcopy, disks, files, host, proc, qcow
from launcher.errors import Refused, WherryError

SPARE: Final = 256 << 20  # bytes that are left free: other things grow as well
_SECONDS: Final = 60.0  # after its last word of progress
_PROGRESS: Final = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")
_HEADER: Final = 4096  # bytes, the last ones of the disk (provisioning/README.md, "Places on the data disk")
_OURS: Final = b"wherry data disk, layout "

Tell = Callable[[int, int], None]  # done and total, bytes


def check_free(target: Path) -> None:
    """Raises Refused when something is there."""
    if os.path.lexists(target):
        raise Refused(f"{target} is there already; a file is never overwritten.", hint="Name another one, or remove it first.")


def check_room(taken: int, folder: Path) -> None:
    """Raises WherryError when a file of that size does not fit into the folder."""
    free = shutil.disk_usage(folder).free
    if taken + SPARE > free:
        raise WherryError(
            f"the disk takes {taken / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {folder}.",
            hint="Make room there, or name another place, then try again: nothing was written.",
        )


def export(source: Path, target: Path, qemu_img: Path, tell: Tell, *, replace: bool = False) -> None:
    """Copy a disk that nothing uses to `target`, which appears whole, synced and in one moment, or stays as it was.

    Raises Refused when something is there and it is not to be replaced, WherryError when there is no room.
    """
    if not replace:
        check_free(target)
    with appearing(target, replace=replace) as made:
        if not _cloned(source, made):
            check_room(diskcopy.size_of(source), target.parent)
            _convert(source, made, target, qemu_img, tell)


@contextmanager
def appearing(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A name for a file that is made in here; then it becomes `target`, synced and in one moment, or in any error goes.

    Raises Refused when something is there by then and it is not to be replaced, WherryError for what the system refuses.
    """
    made = files.temporary(target)
    try:
        yield made
        files.sync(made)
        if replace:
            host.current().replace(made, target)
        else:
            disks.move(made, target)
        host.current().sync_folder(target.parent)
    except OSError as error:
        raise disks.explained(target, "it cannot be written", str(error)) from error
    finally:
        made.unlink(missing_ok=True)


def _cloned(source: Path, made: Path) -> bool:
    """Make the file, and what is in it when that can be shared."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with source.open("rb") as original, open(os.open(made, flags, 0o600), "r+b") as file:
        return host.current().clone(original.fileno(), file.fileno())


def _convert(source: Path, made: Path, target: Path, qemu_img: Path, tell: Tell) -> None:
    total = diskcopy.size_of(source)
    words = [os.fspath(qemu_img), "convert", "-p", "-f", "qcow2", "-O", "qcow2"]
    words += [f"file:{source.absolute()}", disks.name_of(made)]
    with tempfile.TemporaryFile() as errors:
        environment = {**os.environ, "LC_ALL": "C"}
        process = proc.spawn(words, cwd=target.parent, stdout=proc.PIPE, stderr=errors, env=environment)
        assert process.stdout is not None
        try:
            with process.stdout:
                while data := os.read(process.stdout.fileno(), 4096):
                    if found := _PROGRESS.findall(data):
                        tell(int(float(found[-1]) / 100 * total), total)
            code = process.wait(_SECONDS)
        finally:
            if process.poll() is None:  # we are interrupted
                process.kill()
                process.wait()
        if code != 0:
            errors.seek(0)
            raise disks.explained(target, "it cannot be written", errors.read().decode(errors="replace"))


def check_ours(file: Path, qemu_img: Path) -> None:
    """Raises Refused for what is no whole data disk that a machine has used; nothing is written."""
    disks.examine(file, qemu_img)
    # What a file that was cut short lacks reads as zeros, without a word: only its tables tell.
    if broken := qcow.check(file, qemu_img).corruptions:
        said = f"{file} was cut short, or is damaged: {broken} of its parts are missing or wrong."
        raise Refused(said, hint="Copy it again from where it came, or take another backup.")
    size = disks.info(file, qemu_img).virtual_size
    with tempfile.TemporaryDirectory(prefix="wherry-") as folder:
        tail = Path(folder) / "tail"
        words: list[str | Path] = [
            qemu_img, "dd", "-f", "qcow2", "-O", "raw", f"bs={_HEADER}",
            f"skip={(size - size % (1 << 20)) // _HEADER - 1}", f"if={disks.name_of(file)}", f"of={tail}",
        ]  # fmt: skip
        proc.run(words, timeout=_SECONDS, cwd=file.parent)
        if not tail.read_bytes().startswith(_OURS):
            raise Refused(f"{file} holds no data of a machine.", hint="A file that `wherry disk backup` made is wanted.")
