"""disk backup and restore: all images, containers and volumes of a machine as one file, a qcow2 disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launcher import diskcopy, diskexport, disks, files, saved
from launcher.errors import Refused, Usage, WherryError
from launcher.machine import run, storage
from launcher.machine.create import UpOptions
from launcher.machine.settings import existing
from launcher.machine.stop import running
from launcher.machine.suspend import refuse_suspended
from launcher.report import Reporter
from launcher.store import MachineDir


@dataclass(frozen=True)
class Backup:
    """A file that was made; bytes that it takes. `running`: the machine went on meanwhile."""

    file: str
    size: int
    running: bool


@dataclass(frozen=True)
class Restore:
    """What is about to be done. `before`: bytes that the disk takes which goes, None where there is none."""

    name: str
    file: Path
    taken: int  # bytes that the file takes
    size: int  # what the guest will see
    before: int | None


def backup(name: str, file: Path, report: Reporter) -> Backup:
    """Write the machine's disk to `file`, which appears whole or not at all. Of a machine that runs it is the disk of one
    moment, in which its file system is clean: to databases in it as after a power cut.

    Raises Refused when something is there already, or the machine is suspended; WherryError when there is no room.
    """
    directory, target = existing(name), _target(file)
    runs = running(directory)
    if not runs:
        refuse_suspended(directory, "its disk is left alone")
    storage.check_there(directory)
    if target.is_relative_to(directory.path.resolve()):
        raise Refused(f"{target} is in the machine's own folder, and would be deleted with it.", hint="Name another place.")
    _sweep(target)
    if runs:
        if saved.is_suspended(directory):  # it sleeps by itself, and its keeper wakes it
            run.up(name, UpOptions(), report)
        _copy_running(directory, target, report)
    else:
        with storage.at_rest(name):
            _check_used(directory)
            diskexport.export(
                directory.data_disk, target, storage.tool(), lambda done, total: report.progress("backup", done, total)
            )
    return Backup(str(target), diskcopy.size_of(target), runs)


def _target(file: Path) -> Path:
    target = file.parent.resolve() / file.name
    if not target.parent.is_dir():
        raise Usage(f"there is no folder {target.parent}.")
    if target.is_dir():
        raise Usage(f"{target} is a folder; a file is wanted.", hint=f"{target / 'default.qcow2'}")
    diskexport.check_free(target)
    return target


def _check_used(directory: MachineDir) -> None:
    """Raises Refused for a disk that nothing is in: a backup of it could not be restored."""
    if disks.examine(directory.data_disk, storage.tool()) is disks.Holds.NOTHING:
        said = f"machine {directory.name!r} has never been started; its disk is blank, and there is nothing to back up."
        raise Refused(said, hint=f"wherry up {directory.name}")


def _sweep(target: Path) -> None:
    """What a backup to the same file left when it was killed."""
    for left in files.leftovers(target.parent):
        if left.name.startswith(f".{target.name}."):
            left.unlink(missing_ok=True)


def _copy_running(directory: MachineDir, target: Path, report: Reporter) -> None:
    disk = directory.data_disk
    diskexport.check_room(diskcopy.size_of(disk), target.parent)
    with diskexport.appearing(target) as made:
        disks.create(made, disks.info(disk, storage.tool()).virtual_size, storage.tool())
        storage.ask(directory, report, "backup", file=str(made))


def plan(name: str, file: Path) -> Restore:
    """Look at the file and the machine. Raises Refused for a file that is no machine's disk, and while the machine runs or
    is suspended; Usage when there is no file."""
    directory = existing(name)
    refuse_suspended(directory, "its disk is left alone")
    if running(directory):
        raise Refused(f"machine {name!r} is running; its disk is in use.", hint=f"wherry stop {name}")
    if file.is_dir():
        raise Usage(f"{file} is a folder; a file that `wherry disk backup` made is wanted.")
    if not file.is_file():
        raise Usage(f"there is no file {file}.")
    source = file.resolve()
    if directory.data_disk.exists() and source.samefile(directory.data_disk):
        raise Usage(f"{file} is the disk of {name} itself.")
    diskexport.check_ours(source, storage.tool())
    before = diskcopy.size_of(directory.data_disk) if directory.data_disk.exists() else None
    return Restore(name, source, diskcopy.size_of(source), disks.info(source, storage.tool()).virtual_size, before)


def restore(planned: Restore, report: Reporter) -> None:
    """Do it: the machine has the file's disk from now on, and the one before is gone. The caller has asked. The file stays.

    A copy is made whole before anything is replaced, in one rename: whatever ends this, the disk is the old or the new one.
    """
    with storage.at_rest(planned.name) as directory:
        if planned.before is None and directory.data_disk.exists():
            raise Refused(f"machine {planned.name!r} has got a disk meanwhile.", hint="Try again.")
        files.sweep(directory.path)  # one that was killed left what it had copied, and its room is needed
        try:
            diskexport.export(
                planned.file, directory.data_disk, storage.tool(), replace=True,
                tell=lambda done, total: report.progress("restore", done, total),
            )  # fmt: skip
        except WherryError as error:
            error.hint = error.hint or "The machine's disk is as it was. Try again when that is mended."
            raise
    if directory.read_config().disk != planned.size:
        storage.note_size(directory, planned.size)
