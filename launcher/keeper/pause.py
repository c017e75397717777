"""A machine whose disk cannot be written on this computer, mostly since that is full: QEMU holds it until it can be again.

With werror=stop QEMU stops the guest before it hears of a write that failed, and tries the write again at `cont`: nothing is
lost, but everything that talks to the guest would wait without a word.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from launcher import room
from launcher.errors import ConnectionLost, WherryError
from launcher.qemu.blocks import Monitor

log = logging.getLogger("wherry.keeper.pause")

_TRIES_EVERY: Final = 3.0  # seconds
_FAILS_WITHIN: Final = 1.0  # seconds after `cont` in which the same write fails again


class Pause:
    """Hears of failed writes, says so once, and tries to go on until that holds.

    The file system tells when there is room, so QEMU is not asked before. Where it says that there was room all the time, or
    the reason is another one (a quota, a size limit of a file, a disk that fails), only a try can tell.
    """

    def __init__(self, disk: Path, tell: Callable[[str], None]) -> None:
        """`tell` is called with why the machine is held, for `room.held`, and with an empty text when it goes on."""
        self._disk = disk
        self._tell = tell
        self._failed = threading.Event()
        self._lock = threading.Lock()
        self._running = False  # somebody tries: a thread, or found_held
        # For who tries alone, but for _why, which each event sets anew.
        self._why = ""
        self._told = ""
        self._blind = False  # the file system does not tell when a try is worth it

    def on_event(self, name: str, data: dict[str, Any], monitor: Callable[[], Monitor | None]) -> None:
        """From the thread that reads QMP."""
        if name == "BLOCK_IO_ERROR" and data.get("action") == "stop":
            full = data.get("nospace") is True
            self._why = room.FULL if full else room.unwritable(self._disk, str(data.get("reason") or ""))
            self._failed.set()
            if self._take():
                self._go(monitor)

    def found_held(self, monitor: Callable[[], Monitor | None]) -> bool:
        """Whether a QEMU that was just taken over is held for such a write, and goes on being so after a try: that is told
        before it returns, and tried again from then on. Raises WherryError when QEMU does not answer."""
        now = monitor()
        if now is None or now.execute("query-status").get("status") != "io-error":
            return False
        full = any(disk.get("io-status") == "nospace" for disk in now.execute("query-block"))
        if not self._take():
            return True  # an event was quicker
        self._why = room.FULL if full else room.unwritable(self._disk, "")
        self._say(self._why)
        try:
            if self._is_over(now):
                return False
        except WherryError:
            self._give_up()
            raise
        self._go(monitor)
        return True

    def _take(self) -> bool:
        with self._lock:
            taken, self._running = not self._running, True
            return taken

    def _give_up(self) -> None:
        with self._lock:
            self._running = False

    def _go(self, monitor: Callable[[], Monitor | None]) -> None:
        threading.Thread(target=self._run, args=(monitor,), name="pause", daemon=True).start()

    def _run(self, monitor: Callable[[], Monitor | None]) -> None:
        rest = threading.Event()
        try:
            while (now := monitor()) is not None:
                self._say(self._why)
                rest.wait(_TRIES_EVERY)
                if (self._blind or room.is_there(self._disk.parent)) and self._is_over(now):
                    return
        except ConnectionLost as error:  # QEMU has ended
            log.info("held until the end: %s", error.message)
        self._give_up()

    def _is_over(self, monitor: Monitor) -> bool:
        """One try. Raises ConnectionLost when QEMU has ended."""
        if not self._goes_on(monitor):
            return False
        self._say("")
        with self._lock:
            # A write that failed since the look was left to us by its event.
            self._running = self._failed.is_set()
            return not self._running

    def _goes_on(self, monitor: Monitor) -> bool:
        self._failed.clear()
        try:
            monitor.execute("cont")
            if self._failed.wait(_FAILS_WITHIN):
                return False
            # A QEMU that is late answers this after it has told of the write.
            held = monitor.execute("query-status").get("status") == "io-error"
        except ConnectionLost:
            raise
        except WherryError as error:  # too busy to answer, or it refuses for now: it is there, and held
            log.warning("held: %s", error.message)
            return False
        return not held and not self._failed.is_set()

    def _say(self, why: str) -> None:
        if why != self._told:
            self._told = why
            self._blind = why != room.FULL or room.is_there(self._disk.parent)
            self._tell(why)
