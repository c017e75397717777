"""A virtual CPU that its accelerator cannot go on with: QEMU then holds the machine for good, and lives on without a word.

Seen with WHPX ("Unexpected VP exit code 4", QEMU issues 1043 and 2042) and with KVM where a host cannot emulate an instruction.
QEMU calls that state internal-error (qapi/run-state.json); `cont` does not leave it. So it is ended: before the guest's first
word the next rung of the ladder follows, later the machine is started again as after any death of QEMU.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from launcher.errors import WherryError
from launcher.qemu.blocks import Monitor

if TYPE_CHECKING:
    from launcher.keeper.watch import Watch

log = logging.getLogger("wherry.keeper")

FAULT: Final = "a virtual CPU failed, and QEMU held the machine (internal-error)"


def heard(name: str, monitor: Callable[[], Monitor | None], watch: Watch) -> None:
    """An event of QEMU. From the thread that reads QMP, which cannot ask back itself."""
    if name == "STOP":
        threading.Thread(target=lambda: look(monitor(), watch), name="fault", daemon=True).start()


def look(monitor: Monitor | None, watch: Watch) -> None:
    """Whether it is held for that; `watch.fault` says so then, and QEMU ends. Raises nothing."""
    with suppress(WherryError):  # QEMU is gone, which others see
        if monitor is not None and monitor.execute("query-status").get("status") == "internal-error":
            log.warning("%s", FAULT)
            watch.fault = FAULT
            monitor.execute("quit")
