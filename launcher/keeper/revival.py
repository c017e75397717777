"""A QEMU that died though nobody asked it to is started again, once: containers follow their restart policies.

One that dies again soon has a cause that another start does not mend, so it is a failure then: no start is repeated without
end.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from launcher import seed
from launcher.keeper import starter
from launcher.keeper.watch import Cancelled, Watch

if TYPE_CHECKING:
    from launcher.keeper.supervisor import Supervisor

log = logging.getLogger("wherry.keeper")

SOON: Final = 600.0  # seconds
CAUSE: Final = "qemu-ended"


def watch_over(keeper: Supervisor) -> bool:
    """Until a stop is asked for, or the machine ends and is not started again; True: until it is to be suspended.

    Raises as `starter.start` does.
    """
    last: float | None = None
    while True:
        if keeper.suspend_wanted.is_set() and not keeper.watch.ended:
            return True
        keeper.watch.wait_end_or_cancel()
        now = time.monotonic()
        if not (keeper.watch.ended or keeper.watch.cancelled):
            continue  # it is to be suspended; or was, until somebody needed it, who may have interrupted us then
        if not _unasked(keeper) or (last is not None and now - last < SOON):
            return False
        _again(keeper)
        last = time.monotonic()


def _unasked(keeper: Supervisor) -> bool:
    """Whether QEMU died: neither we nor the guest began a stop."""
    watch = keeper.watch
    asked = keeper.stop_wanted or keeper.leaving or "begin" in watch.stops
    return watch.ended and not asked and keeper.disk_action == seed.USE


def _again(keeper: Supervisor) -> None:
    cause = starter.died(keeper).message.rstrip(".")
    log.warning("%s; starting it again", cause)
    began = time.monotonic()
    _clear(keeper)
    keeper.note(f"{cause}; started again, containers followed their restart policies", warning=True)
    starter.start(keeper)
    keeper.is_ready()
    keeper.health.mended(f"{cause}: started again", time.monotonic() - began)


def _clear(keeper: Supervisor) -> None:
    """What the QEMU before left is gone, and another start is told. Raises Cancelled when a stop was asked for meanwhile."""
    assert keeper.guest is not None
    keeper.guest.close()
    keeper.virtiofsds.end()
    keeper.guest, keeper.watch = None, Watch(keeper.on_message)
    keeper.health.forget()
    keeper.health.report("socket", "ok")
    keeper.began = time.monotonic()
    keeper.journal.begin()
    keeper.state = replace(
        keeper.first_state(), keeper_pid=os.getpid(), started=time.time(), notes=keeper.state.notes,
        restarts={**keeper.state.restarts, CAUSE: keeper.state.restarts.get(CAUSE, 0) + 1},
    )  # fmt: skip
    keeper.link.drop()  # who waits for it sees a start now, and waits for that
    if keeper.stop_wanted:  # a request that still saw the watch before
        raise Cancelled
