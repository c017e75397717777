"""A machine's data disk as it is and as it grows: what it takes on this computer, what is in it, how large it may become."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from launcher import control, disks, host, saved
from launcher.config import format_size
from launcher.errors import ConnectionLost, Damaged, NotRunning, Refused, Usage, WherryError
from launcher.machine import wayback
from launcher.machine.settings import existing
from launcher.machine.stop import running
from launcher.machine.suspend import refuse_suspended
from launcher.report import Reporter, SilentReporter
from launcher.store import MachineDir

STEP: Final = 1 << 20  # a disk's size is whole MiB: the guest leaves the last one to its header


@dataclass(frozen=True)
class Facts:
    """A data disk; bytes. What is in it is known of a machine that runs."""

    name: str
    path: str
    size: int  # what the guest sees
    taken: int  # what the file takes on this computer
    total: int | None = None  # of the file system in it
    free: int | None = None
    snapshots: tuple[str, ...] = ()  # kept inside of it
    copies: tuple[tuple[str, int], ...] = ()  # names of files beside it, and what they take
    free_here: int = 0  # on this computer, where it lies

    @property
    def used(self) -> int | None:
        return None if self.total is None or self.free is None else self.total - self.free


@dataclass(frozen=True)
class Grown:
    """A disk that was made larger. `total`: bytes of the file system in it; None where the next start makes that larger."""

    size: int
    total: int | None = None


@dataclass(frozen=True)
class Reclaimed:
    """What a trim gave back; bytes that the disk's file takes on this computer."""

    before: int
    after: int
    trimmed: int = field(default=0)  # what the guest told to be unused

    @property
    def given_back(self) -> int:
        return max(0, self.before - self.after)


def info(name: str) -> Facts:
    """Of a suspended machine too, whose disk is looked at only. Raises NoSuchMachine, and WherryError for a disk that is gone
    or cannot be read."""
    directory = existing(name)
    check_there(directory)
    disk = directory.suspended_disk if saved.is_suspended(directory) else directory.data_disk
    found = disks.info(disk, tool())
    inside = _inside(directory)
    return Facts(
        name=name, path=str(disk), size=found.virtual_size, taken=found.actual_size,
        total=inside[0] if inside else None, free=inside[1] if inside else None,
        snapshots=tuple(disks.snapshots(disk, tool())),
        copies=tuple(wayback.copies(directory)),
        free_here=_free(directory.path),
    )  # fmt: skip


def _inside(directory: MachineDir) -> tuple[int, int] | None:
    """What the machine says now; where it cannot be asked, what the keeper heard last."""
    try:
        told = control.status(directory.control_socket)
    except WherryError:
        return None
    if told.get("status") == "running" and not told.get("paused"):
        with contextlib.suppress(WherryError, KeyError):
            found = ask(directory, SilentReporter(), "info")
            return int(found["total"]), int(found["free"])
    heard = told.get("keeper", {}).get("disk")
    return (int(heard[0]), int(heard[1])) if heard else None


def _free(folder: Path) -> int:
    from launcher import room

    return room.free(folder)


def grow(name: str, size: int, report: Reporter) -> Grown:
    """Make the disk larger: at once where the machine runs, else the file system in it follows at the next start. A size that
    it has already is no error.

    Raises Refused for a smaller one, and what the guest says when its file system cannot be made as large: the disk is larger
    then, and the next start tries again.
    """
    directory = existing(name)
    if size % STEP:
        raise Usage(f"a disk's size is a whole number of MB: {format_size(size - size % STEP)}.")
    config = directory.read_config()
    check_there(directory)
    if running(directory):
        grown = Grown(**ask(directory, report, "grow", size=size))
    else:
        with at_rest(name):
            disks.examine(directory.data_disk, tool())
            if disks.info(directory.data_disk, tool()).virtual_size != size:
                disks.grow(directory.data_disk, size, tool())
        grown = Grown(size)
    if config.disk != size:
        note_size(directory, size)
    return grown


def note_size(directory: MachineDir, size: int) -> None:
    """machine.toml tells what the disk has."""
    lock = host.current().lock(directory.config_lock_file, wait=True)
    try:
        directory.write_config(directory.read_config().changed(disk=size))
    finally:
        if lock is not None:
            os.close(lock)


def reclaim(name: str, report: Reporter) -> Reclaimed:
    """Give back what the machine's file system does not use. Raises NotRunning: only the guest knows what that is."""
    directory = existing(name)
    check_there(directory)
    if not running(directory):
        refuse_suspended(directory, "nothing is given back")
        raise NotRunning(
            f"machine {name!r} is not running, and only its own system knows what is unused.", hint=f"wherry up {name}"
        )
    return Reclaimed(**ask(directory, report, "reclaim"))


def ask(directory: MachineDir, report: Reporter, action: str, **values: Any) -> dict[str, Any]:
    """One piece of work for the keeper, whose progress is told. Raises what failed."""
    framed = control.request(directory.control_socket, "disk", action=action, **values)
    try:
        for event in control.events(framed):
            if event.get("event") == "progress":
                report.progress(str(event["name"]), int(event["done"]), int(event["total"]))
            elif event.get("ok") is True:
                data: dict[str, Any] = event["data"]
                return data
    except Usage as error:
        if "does not know" in error.message:
            raise WherryError("the machine's keeper is too old for this.", hint=f"wherry restart {directory.name}") from error
        raise
    finally:
        framed.close()
    raise ConnectionLost("the keeper ended before it answered.", hint="wherry logs keeper")


@contextlib.contextmanager
def at_rest(name: str) -> Iterator[MachineDir]:
    """A machine that is off, and stays so until this ends. Raises Refused while it runs or is suspended."""
    directory = existing(name)
    lock = host.current().lock(directory.start_lock_file, wait=True)
    try:
        refuse_suspended(directory, "its disk is left alone")
        if running(directory):
            raise Refused(f"machine {name!r} is running; its disk is in use.", hint=f"wherry stop {name}")
        yield directory
    finally:
        if lock is not None:
            os.close(lock)


def check_there(directory: MachineDir) -> None:
    """Raises Damaged for a machine without its disk: a delete that was cut short, or somebody's hand."""
    if not directory.data_disk.exists() and not saved.is_suspended(directory):
        said = f"the data disk of {directory.name} is gone, and with it its images, containers and volumes."
        raise Damaged(said, hint=f"wherry disk restore {directory.name} FILE of a backup, or {directory.repair_hint}")


def tool() -> Path:
    from launcher.qemu import probe

    return probe.find_img()
