"""The qcow2 file around a data disk: whether its tables are whole, and mending them. qemu-img does it (qemu-img(1), check).

Leaks are clusters that nothing uses any more: a QEMU that was killed leaves them, they cost space and nothing else. Corruptions
are references that contradict each other: what mends them decides which data is right.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from launcher import disks, files, proc
from launcher.errors import MissingOnHost, Refused, WherryError

_TIMEOUT: Final = 3600  # a check reads all tables of a large disk
# Exit codes of qemu-img check: 2 corruptions, 3 leaks only; both come with the report.
_REPORTS: Final = (0, 2, 3)


@dataclass(frozen=True)
class Tables:
    """What a check found; counts of clusters."""

    leaks: int
    corruptions: int

    @property
    def whole(self) -> bool:
        return not self.leaks and not self.corruptions


def check(disk: Path, qemu_img: Path) -> Tables:
    """Raises WherryError when the file is no qcow2, or so damaged that not even its tables can be found."""
    return _check(disk, qemu_img)


def mend_leaks(disk: Path, qemu_img: Path) -> Tables:
    """Give the leaked clusters back; touches nothing that is in use."""
    return _check(disk, qemu_img, "-r", "leaks")


def mend_all(disk: Path, qemu_img: Path) -> tuple[Tables, Path]:
    """Mend corruptions too, after the whole file was copied: the copy's path comes back with what is left.

    Raises Refused when there is no space for the copy; nothing was done then.
    """
    copy = _copy(disk)
    return _check(disk, qemu_img, "-r", "all"), copy


def _copy(disk: Path) -> Path:
    copy = disk.with_name(f"{disk.name}.damaged")
    if copy.exists():
        raise Refused(f"{copy} is there from an earlier repair.", hint="Move it away when you have what you need of it.")
    found = disk.stat()
    taken = found.st_blocks * 512 if hasattr(found, "st_blocks") else found.st_size
    free = shutil.disk_usage(disk.parent).free
    if free < taken:
        raise Refused(
            f"the disk is copied before it is mended, and there is no space for that: {taken / 1e9:.1f} GB are needed in"
            f" {disk.parent}, {free / 1e9:.1f} GB are free.",
            hint="Free some, then try again.",
        )
    temporary = files.temporary(copy)
    try:
        files.copy_sparse(disk, temporary)
        files.sync(temporary)
        temporary.replace(copy)
    finally:
        temporary.unlink(missing_ok=True)
    return copy


def _check(disk: Path, qemu_img: Path, *options: str) -> Tables:
    words: list[str | Path] = [qemu_img, "check", "-f", "qcow2", "--output=json", *options, disks.name_of(disk)]
    try:
        found = json.loads(proc.run(words, timeout=_TIMEOUT, cwd=disk.parent, good=_REPORTS))
        return Tables(int(found.get("leaks", 0)), int(found.get("corruptions", 0)) + int(found.get("check-errors", 0)))
    except MissingOnHost:
        raise
    except (WherryError, ValueError, OSError) as error:
        detail = getattr(error, "detail", None)
        raise WherryError(f"{disk} cannot be read as a disk.", detail=detail) from error
