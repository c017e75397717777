"""The keeper of a machine, seen from a command: what it says, and waiting for its end."""

from __future__ import annotations

import time
from typing import Final

from launcher import control
from launcher.errors import NoProgress, NotRunning
from launcher.store import MachineDir

_ENDS_WITHIN: Final = 60.0  # seconds for a keeper that says nothing any more
_LOOKS_EVERY: Final = 0.05


def status(directory: MachineDir) -> str | None:
    """The keeper's word, or None when there is no keeper. Raises WherryError for one that does not answer, or not to us."""
    try:
        found = str(control.status(directory.control_socket)["status"])
    except NotRunning:
        return None
    # One that does not hold our lock is the keeper of a folder that was here before: it notices, and stops.
    return found if directory.keeper_lives() else "stopping"


def wait_suspended(directory: MachineDir) -> None:
    """Until a keeper that saves its machine is through with it, one way or the other. Raises NoProgress when it is silent."""
    while status(directory) == "suspending":
        time.sleep(_LOOKS_EVERY)


def wait_gone(directory: MachineDir, *, alone: bool = False) -> None:
    """Until the keeper that ended, or is ending, is gone: the lock is the last thing that it gives back.

    Returns too when another command has started the next one meanwhile, or when one that had lost its lock file has it again;
    not so with `alone`: the caller keeps others from starting one. Raises NoProgress.
    """
    deadline = time.monotonic() + _ENDS_WITHIN
    while True:
        try:
            found = status(directory)
        except NoProgress:
            found = None
        if (found in ("starting", "running") and not alone) or (found is None and not directory.keeper_lives()):
            return
        if found in ("stopping", "suspending"):  # it says so itself, and gives containers their time
            deadline = time.monotonic() + _ENDS_WITHIN
        elif time.monotonic() > deadline:
            raise NoProgress(f"the keeper of machine {directory.name!r} does not end.", hint=directory.repair_hint)
        time.sleep(_LOOKS_EVERY)
