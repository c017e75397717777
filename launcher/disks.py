"""Data disks: made sparse, never overwritten, looked at before each start. All that is known of them comes from qemu-img."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from launcher import files, host, proc
from launcher.config import format_size
from launcher.errors import MissingOnHost, Refused, WherryError

_TIMEOUT: Final = 120
_TABLES_TIMEOUT: Final = 3600  # a snapshot of a large disk writes all of its tables
# The snapshot in a disk that goes back to what it was before a repair.
SNAPSHOT: Final = "before-repair"
# What mke2fs leaves on a new disk: 8 MB of 100 GB, 89 MB of 2 TB (e2fsprogs 1.47, the guest's options, in clusters of 64 KB).
_LITTLE: Final = 64 << 20
_LITTLE_PART: Final = 8192


class Holds(StrEnum):
    """How much data a disk holds, for the guest, which cannot tell without reading all of it."""

    NOTHING = "nothing"
    LITTLE = "little"  # no more than a formatting that was cut short may leave
    MUCH = "much"


@dataclass(frozen=True)
class DiskInfo:
    virtual_size: int  # bytes, what the guest sees
    actual_size: int  # bytes, what it takes on this computer


def create(path: Path, size: int, qemu_img: Path) -> None:
    """A blank disk of `size` bytes; it appears whole or not at all. Raises Refused when something is there already.

    Plain qcow2: with lazy_refcounts the disk would have to be repaired after every crash, and the guest's flushes, not the
    refcounts, are what writes wait for.
    """
    if os.path.lexists(path):
        raise _taken(path)
    temporary = files.temporary(path)
    try:
        temporary.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise explained(path, "it cannot be made", str(error)) from error
    try:
        # A relative name: the folder's may hold letters that qemu-img cannot open on Windows.
        _qemu_img(path, "it cannot be made", [qemu_img, "create", "-q", "-f", "qcow2", name_of(temporary), str(size)])
        files.sync(temporary)
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move(temporary: Path, path: Path) -> None:
    """Rename, but never over something: on POSIX only a link refuses that."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError:  # a file system without hard links; the machine's lock guards this moment
        if os.path.lexists(path):
            raise _taken(path) from None
        host.current().rename(temporary, path)


def _taken(path: Path) -> Refused:
    return Refused(f"{path} is there already; a disk is never overwritten.")


def info(path: Path, qemu_img: Path) -> DiskInfo:
    """Also of a disk in use. Raises WherryError when it is missing or no qcow2 disk."""
    found = _info(path, qemu_img)
    try:
        return DiskInfo(int(found["virtual-size"]), int(found["actual-size"]))
    except (ValueError, KeyError, TypeError) as error:
        raise WherryError(f"{path} cannot be read as a disk.", detail=repr(error)) from error


def grow(path: Path, size: int, qemu_img: Path) -> None:
    """Make a disk that nothing uses larger; its file takes no more for that. Raises Refused when it is as large already."""
    now = info(path, qemu_img).virtual_size
    check_larger(now, size)
    _qemu_img(path, "it cannot be made larger", [qemu_img, "resize", "-q", "-f", "qcow2", name_of(path), str(size)])
    files.sync(path)


def check_larger(now: int, wanted: int) -> None:
    """Raises Refused for a size that is none to grow to: what is in a disk is never cut off."""
    if wanted <= now:
        raise Refused(f"the disk has {format_size(now)}, and a disk only grows.", hint=f"A size above {format_size(now)}.")


def examine(path: Path, qemu_img: Path) -> Holds:
    """What a disk that is about to be used holds.

    Raises Refused when it is missing, no qcow2 of the plain kind that `create` makes, damaged, or in use by another program;
    nothing is written.
    """
    _check_magic(path)
    facts = _info(path, qemu_img)
    special = facts.get("format-specific", {}).get("data", {})
    for key, what in (("backing-filename", "has a backing file"), ("encrypted", "is encrypted")):
        if facts.get(key):
            raise Refused(f"{path} {what}; that is no disk of wherry's, and it was not touched.")
    if special.get("data-file"):
        raise Refused(f"{path} keeps its data in another file; that is no disk of wherry's, and it was not touched.")
    if special.get("corrupt"):
        raise Refused(f"{path} is marked as corrupt by QEMU; it was not touched.", hint="wherry repair")
    holds = _holds(path, qemu_img, int(facts["virtual-size"]))
    # What a snapshot keeps is not in the map.
    return Holds.MUCH if facts.get("snapshots") else holds


def _check_magic(path: Path) -> None:
    """QEMU docs/interop/qcow2.txt: it begins with these four bytes."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError as error:
        raise Refused(f"{path} is gone, and with it the machine's images, containers and volumes.") from error
    except OSError as error:
        raise explained(path, "it cannot be read", str(error)) from error
    if magic != b"QFI\xfb":
        raise Refused(f"{path} is no qcow2 disk; it was not touched.")


def _holds(path: Path, qemu_img: Path, size: int) -> Holds:
    """From qemu-img's map, no further than it takes: a fragmented disk has a million extents."""
    words = [os.fspath(qemu_img), "map", "-f", "qcow2", "--output=json", name_of(path)]
    most = _LITTLE + size // _LITTLE_PART
    with tempfile.TemporaryFile() as stderr:
        mapping = proc.spawn(words, cwd=path.parent, stdout=proc.PIPE, stderr=stderr, env=_environment())
        assert mapping.stdout is not None
        total = 0
        with mapping.stdout:
            for line in mapping.stdout:  # one extent a line, in one JSON array
                extent = _extent(path, line)
                if extent is not None and extent["data"]:
                    total += int(extent["length"])
                if total > most:
                    mapping.kill()
                    break
        code = mapping.wait(_TIMEOUT)
        if total > most:
            return Holds.MUCH
        if code != 0:
            stderr.seek(0)
            raise explained(path, "it cannot be read", stderr.read().decode(errors="replace"))
    return Holds.LITTLE if total else Holds.NOTHING


def _extent(path: Path, line: bytes) -> dict[str, Any] | None:
    text = line.strip().strip(b"[],")
    if not text:
        return None
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise WherryError(f"{path}: qemu-img's map is not understood.", detail=line.decode(errors="replace")) from error
    return found


def name_of(path: Path) -> str:
    """A file in qemu-img's own folder, so that it takes no part of the name for a protocol or an option."""
    return f"file:{path.name}"


def snapshots(path: Path, qemu_img: Path) -> list[str]:
    """The names of the snapshots in a disk."""
    return [str(item["name"]) for item in _info(path, qemu_img).get("snapshots", [])]


def take_snapshot(path: Path, qemu_img: Path) -> bool:
    """Keep the disk as it is now, inside of it; what is written later takes space anew. False when there is one already, which
    stays: it is from before an earlier try."""
    if SNAPSHOT in snapshots(path, qemu_img):
        return False
    _qemu_img(path, "it cannot be kept as it is", [qemu_img, "snapshot", "-q", "-c", SNAPSHOT, name_of(path)])
    return True


def revert(path: Path, qemu_img: Path) -> None:
    """Back to the snapshot, which stays. Raises Refused when there is none."""
    if SNAPSHOT not in snapshots(path, qemu_img):
        raise Refused(f"{path} was not kept as it was before a repair.")
    _qemu_img(path, "it cannot go back", [qemu_img, "snapshot", "-q", "-a", SNAPSHOT, name_of(path)])


def drop_snapshot(path: Path, qemu_img: Path) -> bool:
    """Forget what was before the repair; False when there is no snapshot."""
    if SNAPSHOT not in snapshots(path, qemu_img):
        return False
    _qemu_img(path, "its snapshot cannot be removed", [qemu_img, "snapshot", "-q", "-d", SNAPSHOT, name_of(path)])
    return True


def _info(path: Path, qemu_img: Path) -> dict[str, Any]:
    # -U: a running QEMU holds the lock, and reading the header needs none. The format is given, never guessed from content.
    words: list[str | Path] = [qemu_img, "info", "-U", "-f", "qcow2", "--output=json", name_of(path)]
    try:
        found: dict[str, Any] = json.loads(proc.run(words, timeout=_TIMEOUT, cwd=path.parent))
        return found
    except MissingOnHost:
        raise
    except (WherryError, ValueError, OSError) as error:
        raise WherryError(f"{path} cannot be read as a disk.", detail=getattr(error, "detail", None)) from error


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _qemu_img(path: Path, what: str, words: list[str | Path]) -> None:
    try:
        proc.run(words, timeout=_TABLES_TIMEOUT, cwd=path.parent, env=_environment())
    except MissingOnHost:
        raise
    except WherryError as error:
        raise explained(path, what, error.detail or error.message) from error


# What qemu-img prints of the system's errors (strerror, in the C locale) and of QEMU's own locks.
_REASONS: Final = (
    ("No space left on device", "there is no space left on its drive", "Make space, then try again."),
    ("Disk quota exceeded", "your quota on its drive is used up", "Make space, then try again."),
    ("Read-only file system", "its drive is read-only", None),
    ("Permission denied", "this user may not write there", None),
    ("Failed to get", "another program uses it", "End what uses it: a QEMU, qemu-nbd or qemu-img."),
    ("File too large", "its drive takes no file of that size", None),
    ("Input/output error", "its drive reports errors", "Copy data.qcow2 to another drive while that is possible."),
)


def explained(path: Path, what: str, words: str) -> WherryError:
    """What a tool of QEMU said of a disk, as an error with its reason."""
    for sign, reason, hint in _REASONS:
        if sign in words:
            kind = Refused if sign == "Failed to get" else WherryError
            return kind(f"{path}: {what}: {reason}.", hint=hint, detail=words.strip())
    return WherryError(f"{path}: {what}.", detail=words.strip() or None)
