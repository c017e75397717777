"""Data disks: made sparse, never overwritten. All that is known of them comes from qemu-img."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from launcher import files, proc
from launcher.errors import MissingOnHost, Refused, WherryError

_TIMEOUT: Final = 120


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
        # A relative name: the folder's may hold what qemu-img takes for a protocol, or letters that it cannot open on Windows.
        proc.run([qemu_img, "create", "-q", "-f", "qcow2", temporary.name, str(size)], timeout=_TIMEOUT, cwd=path.parent)
        files.sync(temporary)
        _move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _move(temporary: Path, path: Path) -> None:
    """Rename, but never over something: on POSIX only a link refuses that."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError:  # a file system without hard links; the machine's lock guards this moment
        if os.path.lexists(path):
            raise _taken(path) from None
        os.rename(temporary, path)


def _taken(path: Path) -> Refused:
    return Refused(f"{path} is there already; a disk is never overwritten.")


def info(path: Path, qemu_img: Path) -> DiskInfo:
    """Also of a disk in use. Raises WherryError when it is missing or no qcow2 disk."""
    # -U: a running QEMU holds the lock, and reading the header needs none. The format is given, never guessed from content.
    words: list[str | Path] = [qemu_img, "info", "-U", "-f", "qcow2", "--output=json", path.name]
    try:
        found = json.loads(proc.run(words, timeout=_TIMEOUT, cwd=path.parent))
        return DiskInfo(int(found["virtual-size"]), int(found["actual-size"]))
    except MissingOnHost:
        raise
    except (WherryError, ValueError, KeyError, OSError) as error:
        raise WherryError(f"{path} cannot be read as a disk.", detail=getattr(error, "detail", None)) from error
