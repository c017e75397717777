"""A machine whose disk finds no more space on this computer: QEMU holds it, and it goes on when there is space.

QEMU's default for a write that fails with ENOSPC is to stop the guest before it hears of it, and to try the write again at
`cont` (qemu-doc, werror=enospc): nothing is lost, but everything that talks to the guest would wait without a word.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from launcher import room
from launcher.errors import WherryError

log = logging.getLogger("wherry.keeper.pause")

_TRIES_EVERY: Final = 3.0  # seconds
_FAILS_WITHIN: Final = 1.0  # seconds after `cont` in which the same write fails again


class Monitor(Protocol):
    def execute(self, command: str, /, *, timeout: float = 30, **arguments: Any) -> Any: ...


class Pause:
    """Hears of failed writes, says so once, and tries to go on until that holds.

    The file system tells when there is room, so QEMU is not asked before. Where it says that there was room all the time (a
    quota, a size limit of a file), only a try can tell.
    """

    def __init__(self, folder: Path, tell: Callable[[bool], None]) -> None:
        """`tell` is called with True when the machine is held, with False when it goes on."""
        self._folder = folder
        self._tell = tell
        self._failed = threading.Event()
        self._lock = threading.Lock()
        self._running = False

    def on_event(self, name: str, data: dict[str, Any], monitor: Callable[[], Monitor | None]) -> None:
        """From the thread that reads QMP."""
        if name == "BLOCK_IO_ERROR" and data.get("action") == "stop":
            self._failed.set()
            self.begin(monitor)

    def found_held(self, monitor: Monitor) -> bool:
        """Whether a QEMU that was just taken over is held for such a write, and goes on being so."""
        if monitor.execute("query-status").get("status") != "io-error":
            return False
        return not self._goes_on(monitor)

    def begin(self, monitor: Callable[[], Monitor | None]) -> None:
        """The machine is held: have a thread that tries to go on."""
        with self._lock:
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, args=(monitor,), name="pause", daemon=True).start()

    def _run(self, monitor: Callable[[], Monitor | None]) -> None:
        self._tell(True)
        rest = threading.Event()
        blind = room.is_there(self._folder)
        try:
            while (now := monitor()) is not None:
                rest.wait(_TRIES_EVERY)
                if (blind or room.is_there(self._folder)) and self._goes_on(now):
                    self._tell(False)
                    return
        except WherryError as error:  # QEMU has ended
            log.info("held until the end: %s", error.message)
        finally:
            with self._lock:
                self._running = False

    def _goes_on(self, monitor: Monitor) -> bool:
        self._failed.clear()
        monitor.execute("cont")
        return not self._failed.wait(_FAILS_WITHIN)
