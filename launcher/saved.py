"""What a suspended machine leaves: its memory in suspend.zst, its disk under a name that no start uses, and suspend.json.

suspend.json says what the memory belongs to. While it is there the guest has not run since it was saved; it goes before the
guest runs again. So whatever a kill leaves, `settle` finds what the machine is: suspended, or off with a disk as after a power
cut.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any, Final, NamedTuple, Self

from launcher import __version__, host, release
from launcher.config import MachineConfig
from launcher.errors import Damaged, Refused, WherryError
from launcher.files import write_private
from launcher.machinedir import MachineDir

VERSION: Final = 1


class Saved(NamedTuple):
    """What one saved memory belongs to."""

    id: str  # also in suspend.zst
    iso: str  # SHA-256
    qemu_version: str  # of the QEMU that saved it, with the name of its build
    accel: str  # the rung of the ladder
    cpu: str  # what of this computer's processor the guest may know; empty under emulation
    cpus: int  # of the guest, and its memory in bytes: machine.toml may say others for its next start
    ram: int
    command: list[str]  # QEMU's words, less those that differ with every start
    disk: list[int]  # of the data disk's file: bytes, time of the last change in nanoseconds
    memory: int  # bytes of suspend.zst
    at: float = 0.0  # when the guest stopped, seconds since the epoch
    engine: str = ""  # its version
    wherry: str = __version__

    def to_json(self) -> dict[str, Any]:
        return {"version": VERSION, **self._asdict()}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Raises Refused for a newer wherry's, Damaged for anything else that is none."""
        values = dict(data) if isinstance(data, dict) else {}
        version, wherry = values.pop("version", None), str(values.get("wherry") or "")
        unknown = set(values) - set(cls._fields)
        if (isinstance(version, int) and version > VERSION) or (unknown and release.is_newer(wherry)):
            raise release.refused("suspend.json", wherry)
        right = version == VERSION and set(_TYPES) == set(values) and all(_is(values[key], of) for key, of in _TYPES.items())
        if not right or len(values["disk"]) != 2:
            raise Damaged("it is no description of a saved machine.")
        return cls(**values)


_TYPES: Final[dict[str, str]] = {name: str(getattr(of, "__forward_arg__", of)) for name, of in Saved.__annotations__.items()}


def _is(value: object, of: str) -> bool:
    """Whether the value is of that type, as it is written above."""
    if of.startswith("list["):
        return isinstance(value, list) and all(_is(one, of[5:-1]) for one in value)
    return type(value).__name__ == of or (of, type(value)) == ("float", int)


def possible() -> bool:
    """Whether a machine's memory can be saved on this system at all: QEMU is handed a descriptor for it."""
    return host.current().ENDPOINT == "unix"


def idle_minutes(config: MachineConfig, accel: str) -> int:
    """After how many minutes without any use the machine is suspended by itself; 0: never."""
    return config.idle_minutes(accel) if possible() else 0


def is_suspended(directory: MachineDir) -> bool:
    """Whether the disk waits for the memory that belongs to it. Where both names are taken the machine is broken."""
    return os.path.lexists(directory.suspended_disk)


def read(directory: MachineDir) -> Saved:
    """What the memory of a suspended machine belongs to. Raises Damaged, with the way out, Refused for a newer wherry's."""
    file = directory.suspend_file
    try:
        return Saved.from_json(json.loads(file.read_text(encoding="utf-8")))
    except Refused:
        raise
    except FileNotFoundError:
        why = f"{file} is lost"
    except Damaged as error:
        why = f"{file} is damaged: {error.message.rstrip('.')}"
    except (OSError, ValueError, RecursionError) as error:
        why = f"{file} cannot be read: {error}"
    raise Damaged(f"{why}; so nobody can tell what the saved memory belongs to.", hint=cold_hint(directory))


def cold_hint(directory: MachineDir) -> str:
    name = "" if directory.name == "default" else f" {directory.name}"
    return f"wherry up --cold{name} gives the memory up and starts the machine from its disk, as after a power cut."


def stamp(directory: MachineDir, *, suspended: bool) -> list[int]:
    """Size and time of the last change of the data disk's file, which every write changes. Raises OSError."""
    found = (directory.suspended_disk if suspended else directory.data_disk).stat()
    return [found.st_size, found.st_mtime_ns]


def write(directory: MachineDir, saved: Saved) -> None:
    """From here on the memory is the machine's, unless its disk changes."""
    write_private(directory.suspend_file, json.dumps(saved.to_json(), indent=1).encode())


def check_disks(directory: MachineDir) -> None:
    """Raises Damaged when there are two disks: which of them is the machine's nobody can tell."""
    if os.path.lexists(directory.data_disk) and os.path.lexists(directory.suspended_disk):
        raise Damaged(
            f"it has two disks, {directory.data_disk.name} and {directory.suspended_disk.name}.",
            hint=f"Only one can be its own: move the other one out of {directory.path}.",
        )


def put_away(directory: MachineDir) -> None:
    """The disk gets the name that no start uses, an older wherry's neither. Raises Damaged when that name is taken."""
    _move(directory, directory.data_disk.name, directory.suspended_disk.name)


def spend(directory: MachineDir) -> None:
    """The guest is about to run: the disk is the data disk again, and the memory belongs to nothing any more."""
    _move(directory, directory.suspended_disk.name, directory.data_disk.name)
    forget(directory)


def forget(directory: MachineDir) -> None:
    """Nothing tells any more that there is a memory to resume; it can be removed by and by."""
    directory.suspend_file.unlink(missing_ok=True)
    host.current().sync_folder(directory.path)


def discard(directory: MachineDir) -> None:
    """Give the memory up: the machine is off, its disk as after a power cut. The caller knows that no QEMU has it."""
    if is_suspended(directory):
        spend(directory)
    forget(directory)
    directory.memory_file.unlink(missing_ok=True)


def sweep(directory: MachineDir) -> None:
    """The machine runs: what it was resumed from goes."""
    with suppress(OSError):
        if directory.suspend_file.exists():
            forget(directory)
        directory.memory_file.unlink(missing_ok=True)


def settle(directory: MachineDir) -> None:
    """Bring what a kill in the middle of saving or resuming left to one of the two states. The caller knows that neither a
    keeper nor a QEMU of the machine lives. Raises OSError."""
    if is_suspended(directory):
        return
    try:
        saved = read(directory)
        kept = directory.memory_file.stat().st_size == saved.memory and stamp(directory, suspended=False) == saved.disk
    except Refused:
        raise
    except (WherryError, OSError):
        kept = False
    if kept:
        put_away(directory)
    elif directory.suspend_file.exists() or directory.memory_file.exists():
        discard(directory)


def _move(directory: MachineDir, name: str, to: str) -> None:
    """The caller has the machine's lock, so nobody makes a file between the look and the rename."""
    check_disks(directory)
    host.current().rename(directory.path / name, directory.path / to)
    host.current().sync_folder(directory.path)
