"""From running to off: the guest is told first, QEMU is ended only when the guest makes no progress."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from launcher.errors import WherryError
from launcher.qemu import qmp

if TYPE_CHECKING:
    from launcher.keeper.supervisor import Supervisor

log = logging.getLogger("wherry.keeper")

PATIENCE: Final = 60.0  # seconds without a word before QEMU is ended
_PRESS_EVERY: Final = 2.0  # a button pressed before the guest listens is lost
_BUTTON_SECONDS: Final = 20.0  # after this, SSH is tried as well


def stop(keeper: Supervisor) -> None:
    """End the guest and QEMU. Returns when QEMU is gone."""
    guest = keeper.guest
    assert guest is not None
    keeper.journal.add({"event": "stop", "step": "asked", "seconds": 0.0})
    if not keeper.stop_force and told(keeper) and keeper.watch.wait_end(PATIENCE):
        guest.close()
        return
    if not keeper.stop_force:
        log.warning("the guest made no progress for %g s; ending QEMU", PATIENCE)
        keeper.note(f"the guest did not power off (no progress for {PATIENCE:g} s); QEMU was ended")
    guest.quit()


def told(keeper: Supervisor) -> bool:
    """Press the power button until the guest begins its shutdown. False when it never does, or when force overtakes."""
    guest = keeper.guest
    assert guest is not None
    began = time.monotonic()
    asked_by_ssh = False
    while not keeper.stop_force:
        with suppress(WherryError):
            qmp.power_button(guest.qmp, keeper.config.arch)
        if keeper.watch.wait_stop(_PRESS_EVERY):
            return True
        waited = time.monotonic() - began
        if waited > _BUTTON_SECONDS and not asked_by_ssh and "ssh" in keeper.watch.stages:
            asked_by_ssh = True
            log.warning("the power button has no effect; asking over SSH")
            with suppress(WherryError):
                keeper.connection().run(["poweroff"], timeout=10)
        if waited > PATIENCE:
            return False
    return False
