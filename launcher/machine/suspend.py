"""suspend, and what a suspended machine refuses: its saved memory belongs to its disk, ISO and hardware as they are."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from launcher import control, saved, store
from launcher.errors import ConnectionLost, NoSuchMachine, NotRunning, Refused, WherryError
from launcher.machine import keepers, run
from launcher.machine.stop import running
from launcher.report import Reporter, SilentReporter
from launcher.saved import cold_hint
from launcher.store import MachineDir

_HARDWARE: Final = frozenset({"cpus", "memory", "accel", "qemu"})


@dataclass(frozen=True)
class Suspended:
    """How it went: seconds that it took, and bytes of the saved memory on this computer."""

    name: str
    already: bool
    seconds: float
    size: int


def suspend(name: str, report: Reporter) -> Suspended:
    """Save the machine to the disk and end it; containers stand still until it is resumed.

    Raises NotRunning for one that is off, Refused when it cannot be saved; in every error the machine goes on, or is
    suspended, or off, and `status` says which.
    """
    directory = store.machine(name)
    if not directory.exists():
        raise NoSuchMachine(f"there is no machine {name!r}.", hint="wherry list")
    if not running(directory) or keepers.status(directory) == "suspended":
        if saved.is_suspended(directory):
            return Suspended(name, True, 0.0, _size(directory))
        raise NotRunning(f"machine {name!r} is not running.", hint=f"wherry up {name}")
    began = time.monotonic()
    run.ensure_keeper(directory, report)  # of one whose keeper died, or is an older wherry's
    run.follow_start(directory, SilentReporter())
    _ask(directory, report)
    keepers.wait_gone(directory)
    return Suspended(name, False, time.monotonic() - began, _size(directory))


def _ask(directory: MachineDir, report: Reporter) -> None:
    framed = control.request(directory.control_socket, "suspend")
    try:
        for event in control.events(framed):
            if event.get("event") == "suspend-progress":
                report.progress("memory", event["done"], event["total"])
            elif event.get("event") == "warning":
                report.warn(event["text"])
    except ConnectionLost as error:
        if not saved.is_suspended(directory):
            raise WherryError(
                f"the keeper of machine {directory.name!r} ended before the machine was saved.",
                hint=f"wherry up {directory.name}",
            ) from error
    finally:
        framed.close()
        report.progress("memory", 1, 1)


def _size(directory: MachineDir) -> int:
    return directory.memory_file.stat().st_size if directory.memory_file.exists() else 0


def refuse_hardware(directory: MachineDir, names: Collection[str]) -> None:
    """Raises Refused when the machine is suspended and one of these settings is of its hardware."""
    hardware = sorted(_HARDWARE & set(names))
    if hardware:
        refuse_suspended(directory, f"{' and '.join(hardware)} cannot be changed")


def refuse_suspended(directory: MachineDir, what: str) -> None:
    """Raises Refused when the machine is suspended. `what` ends the sentence "while a machine is suspended ..."."""
    if saved.is_suspended(directory):
        raise Refused(
            f"machine {directory.name!r} is suspended: its saved memory belongs to its disk, ISO and hardware as they are;"
            f" until it is resumed {what}.",
            hint=f"wherry up {directory.name} resumes it. {cold_hint(directory)}",
        )
