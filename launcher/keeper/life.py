"""What a machine that runs goes through until it is to end: deaths of QEMU, and being suspended."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from launcher.errors import ConnectionLost, WherryError
from launcher.keeper import resumer, revival, suspender
from launcher.keeper.watch import Watch

if TYPE_CHECKING:
    from launcher.keeper.supervisor import Supervisor

log = logging.getLogger("wherry.keeper")


def live(keeper: Supervisor) -> bool:
    """Until the machine is to end; whether it is suspended then. Raises as `starter.start` and `resumer.resume` do, and
    Cancelled."""
    while revival.watch_over(keeper):
        idle = keeper.idle_wanted
        keeper.suspend_wanted.clear()
        if idle:
            keeper.nap.begin(lambda: keeper.watch.interrupt())
            keeper.journal.begin()  # who waits for a start now waits for the next one
        # Who comes from here on wakes it; who came since it was decided is not to lose what he has begun.
        if (idle and keeper.parts.used()) or not _suspended(keeper):
            keeper.nap.end()
            if idle and not keeper.watch.ended:
                keeper.is_ready()
        elif not idle or not _slept(keeper):
            return True
    return False


def _suspended(keeper: Supervisor) -> bool:
    """Whether it came to that; else the machine goes on, and who asked hears why. Or QEMU is gone: for the next turn."""
    try:
        suspender.suspend(keeper)
        return True
    except WherryError as failed:
        error = _ended() if isinstance(failed, ConnectionLost) else failed
        log.warning("not suspended: %s", failed.message)
        keeper.journal.add({"event": "unsuspended", "error": error.to_json()})
        return False


def _ended() -> WherryError:
    return WherryError("QEMU ended before the machine was saved; it is started again, as after a power cut.", hint="wherry up")


def _slept(keeper: Supervisor) -> bool:
    """Until somebody needs the machine, which runs then. False: the keeper is to end."""
    assert keeper.guest is not None
    keeper.guest.close()
    keeper.guest, keeper.watch = None, Watch(keeper.on_message)
    keeper.update(status="suspended", qemu_pid=0, qemu_stamp="", ssh_port=0, token="", timeline=[])
    keeper.health.forget()
    keeper.health.report("socket", "ok")
    while not (keeper.nap.woken or keeper.stop_wanted):
        keeper.watch.wait_end_or_cancel()
    if keeper.stop_wanted:
        return False
    keeper.began = time.monotonic()
    keeper.update(status="starting", keeper_pid=os.getpid(), started=time.time())
    keeper.nap.end()
    resumer.resume(keeper)
    keeper.is_ready()
    return True
