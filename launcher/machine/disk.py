"""What is done with a data disk only when it is asked for: repair, a look without writing, a new one in place of a lost one."""

from __future__ import annotations

from pathlib import Path

from launcher import store
from launcher.errors import NoSuchMachine, Refused
from launcher.machine.create import UpOptions
from launcher.machine.run import UpResult, up
from launcher.machine.stop import running
from launcher.machine.suspend import refuse_suspended
from launcher.report import Reporter
from launcher.store import MachineDir


def repair_disk(name: str, report: Reporter) -> UpResult:
    """Let e2fsck repair the file system in the machine's disk, and start the machine. What the disk is now is kept in it first,
    as a snapshot: `undo_repair` goes back to it, `forget_repair` drops it.

    Raises Refused while the machine runs, and when e2fsck cannot repair it.
    """
    from launcher import disks, seed

    directory = _stopped(name)
    disks.examine(directory.data_disk, _tool())
    if disks.take_snapshot(directory.data_disk, _tool()):
        report.step("kept", f"the disk as it is now, inside of data.qcow2: wherry repair --undo {name} goes back")
    return up(name, UpOptions(), report, disk_action=seed.REPAIR)


def open_read_only(name: str, report: Reporter) -> UpResult:
    """Start the machine without its engine and with the disk mounted read-only, its journal not replayed: for `ssh` and `cp`.

    Raises Refused while it runs, and when the disk cannot even be read.
    """
    from launcher import seed

    _stopped(name)
    return up(name, UpOptions(), report, disk_action=seed.READ_ONLY)


def undo_repair(name: str, report: Reporter) -> None:
    """Bring the disk back to what it was before the repair; what was written since is lost. Refused if it was not kept."""
    from launcher import disks

    directory = _stopped(name)
    disks.examine(directory.data_disk, _tool())
    disks.revert(directory.data_disk, _tool())
    report.step("disk", "as it was before the repair")


def forget_repair(name: str, report: Reporter) -> bool:
    """Drop what was kept before a repair, which gives its space back; False when there was nothing."""
    from launcher import disks

    directory = _stopped(name)
    disks.examine(directory.data_disk, _tool())
    dropped = disks.drop_snapshot(directory.data_disk, _tool())
    if dropped:
        report.step("disk", "what it was before the repair is forgotten")
    return dropped


def new_disk(name: str, report: Reporter) -> None:
    """An empty disk for a machine that has lost its own. Raises Refused when one is there: it has to be taken away by hand."""
    from launcher import disks

    directory = _stopped(name)
    disks.create(directory.data_disk, directory.read_config().disk, _tool())
    report.step("disk", f"an empty one, {directory.data_disk}")


def _stopped(name: str) -> MachineDir:
    directory = store.machine(name)
    if not directory.exists():
        raise NoSuchMachine(f"there is no machine {name!r}.", hint="wherry list")
    refuse_suspended(directory, "its disk is left alone")
    if running(directory):
        raise Refused(f"machine {name!r} is running; its disk is in use.", hint=f"wherry stop {name}")
    return directory


def _tool() -> Path:
    from launcher.qemu import probe

    return probe.find_img()
