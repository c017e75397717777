"""What a machine that runs goes through until it is to end: deaths of QEMU, and being suspended."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from launcher.errors import ConnectionLost, WherryError
from launcher.keeper import revival, suspender

if TYPE_CHECKING:
    from launcher.keeper.supervisor import Supervisor

log = logging.getLogger("wherry.keeper")


def live(keeper: Supervisor) -> bool:
    """Until the machine is to end; whether it was suspended. Raises as `starter.start` does, and Cancelled."""
    while revival.watch_over(keeper):
        if _suspended(keeper):
            return True
    return False


def _suspended(keeper: Supervisor) -> bool:
    """Whether it came to that; else the machine goes on, and who asked hears why."""
    keeper.suspend_wanted.clear()
    try:
        suspender.suspend(keeper)
        return True
    except ConnectionLost as error:  # QEMU is gone, most likely: seen to by the next turn
        why: WherryError = error
    except WherryError as error:
        why = error
    log.warning("not suspended: %s", why.message)
    keeper.journal.add({"event": "unsuspended", "error": why.to_json()})
    return False
