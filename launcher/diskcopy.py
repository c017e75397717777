"""A full copy of a data disk that nothing uses: shared with the original where the file system can, sparse elsewhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO, Final

from launcher import files, host
from launcher.errors import Refused, WherryError
from launcher.report import Reporter

_CHUNK: Final = 1 << 20
_SPARE: Final = 256 << 20  # bytes that are left free: the machine's disk grows as well


def size_of(path: Path) -> int:
    """Bytes that the file takes on this computer."""
    found = path.stat()
    return found.st_blocks * 512 if hasattr(found, "st_blocks") else found.st_size


def check_space(source: Path) -> None:
    """Raises WherryError when there is no room for a copy beside the original."""
    need, free = size_of(source) + _SPARE, shutil.disk_usage(source.parent).free
    if need > free:
        raise WherryError(
            f"a copy of {source} needs {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free.",
            hint="Make room, or go without the copy: --no-copy",
        )


def copy(source: Path, target: Path, report: Reporter) -> None:
    """Copy `source` to `target`, which appears whole or not at all. Raises Refused when something is there already, WherryError
    when there is no room."""
    if os.path.lexists(target):
        raise Refused(f"{target} is there already; a disk is never overwritten.")
    partial = files.temporary(target)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with source.open("rb") as original, open(os.open(partial, flags, 0o600), "r+b") as made:
            if not host.current().clone(original.fileno(), made.fileno()):
                check_space(source)
                _copy(original, made, report)
            made.flush()
            os.fsync(made.fileno())
        host.current().replace(partial, target)
        host.current().sync_folder(target.parent)
    except OSError as error:
        raise WherryError(
            f"{source} cannot be copied: {error}.", hint="Make room, or go without the copy: --no-copy"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _copy(original: BinaryIO, made: BinaryIO, report: Reporter) -> None:
    total, done = os.fstat(original.fileno()).st_size, 0
    while data := original.read(_CHUNK):
        if data.count(0) == len(data):
            made.seek(len(data), os.SEEK_CUR)  # a hole stays one
        else:
            made.write(data)
        done += len(data)
        report.progress("copy", done, max(total, done))
    made.truncate(done)
