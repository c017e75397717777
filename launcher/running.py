"""Whether a machine runs under a keeper of this very wherry. On the way of every proxied command: nothing slow here."""

from __future__ import annotations

from typing import Any

from launcher import __version__, control
from launcher.errors import NotRunning, WherryError
from launcher.store import MachineDir


def ours(answer: dict[str, Any]) -> bool:
    """Whether the keeper that gave this answer to `status` is of this wherry."""
    return bool(answer.get("keeper", {}).get("wherry") == __version__)


def for_us(directory: MachineDir) -> bool:
    """Raises WherryError for a keeper of ours that gives no answer; an older wherry's is for `machine.succession`."""
    try:
        answer = control.status(directory.control_socket)
    except NotRunning:
        return False
    except WherryError:
        if directory.read_state().wherry == __version__:
            raise
        return False
    return ours(answer) and answer["status"] == "running" and directory.keeper_lives()
