"""How much can still be written: where a machine's disk lies on this computer, and inside of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from launcher.errors import WherryError

WANTED: Final = 256 << 20  # bytes; less where the whole file system is small
FULL_FROM: Final = 85  # per cent
FULL: Final = "this computer's disk is full"  # why a machine is held, as its state has it; otherwise what unwritable() says


def free(folder: Path) -> int:
    """Bytes that can still be written there; 0 when that cannot be known."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def wanted(folder: Path) -> int:
    """How many free bytes a machine waits for that is held on a full disk: so many that it is not held again at once."""
    try:
        return min(WANTED, shutil.disk_usage(folder).total // 20)
    except OSError:
        return WANTED


def is_there(folder: Path) -> bool:
    """Whether a held machine may go on."""
    return free(folder) >= wanted(folder)


def unwritable(disk: Path, reason: str) -> str:
    """Why a machine is held whose disk cannot be written though there is space. `reason`: the system's words, if known."""
    return f"this computer cannot write {disk}" + (f" ({reason})" if reason else "")


def held(folder: Path, why: str = FULL) -> WherryError:
    """What is said of a machine that is held, with the numbers of now."""
    if why != FULL:
        return WherryError(
            f"paused: {why}.", hint="Nothing is lost; the machine goes on by itself when the file can be written again."
        )
    return WherryError(
        f"paused: {FULL} ({_size(free(folder))} free in {folder}).",
        hint=f"Nothing is lost; the machine goes on by itself when {_size(wanted(folder))} are free there.",
    )


def warnings(folder: Path, guest: tuple[int, int] | None) -> list[str]:
    """A line for each disk that is nearly full. `guest`: the machine's own, bytes in all and free."""
    found = []
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        usage = None
    if usage is not None and (share := _share(usage.used + usage.free, usage.free)) >= FULL_FROM:
        found.append(f"this computer's disk is {share} % full ({_size(usage.free)} free in {folder})")
    if guest is not None and (share := _share(*guest)) >= FULL_FROM:
        found.append(f"the machine's disk is {share} % full ({_size(guest[1])} free): wherry docker system prune")
    return found


def _share(total: int, left: int) -> int:
    return 100 * (total - left) // total if total else 0


def _size(value: int) -> str:
    """In powers of 1000: 0 bytes, 41 MB, 1.2 GB."""
    if value < 1_000_000:
        return f"{value} bytes"
    return f"{value / 1e9:.1f} GB" if value >= 1_000_000_000 else f"{value // 1_000_000} MB"
