"""The keeper's one timer: a look every second at whether time jumped, and every few seconds at what nobody would tell us of.

After a sleep of this computer the monotonic clock has stood still (Linux, macOS) or this thread has (Windows, SIGSTOP); both
show within a second of waking, without asking any system's own power events.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger("wherry.keeper.pulse")

_TICK: Final = 1.0  # seconds; bounds how late a waking is noticed
_EVERY: Final = 5  # ticks
STOOD_STILL: Final = 3.0  # seconds that a tick lasted longer than it should
JUMPED: Final = 0.5  # seconds by which the wall clock moved otherwise than the monotonic one


class Pulse:
    """One thread."""

    def __init__(self, on_jump: Callable[[float], None]) -> None:
        """`on_jump` gets by how many seconds time jumped; negative when the clock was set back. It must return soon."""
        self._on_jump = on_jump
        self._ticks: list[Callable[[], None]] = []
        self._looks: list[Callable[[], None]] = []
        self._over = threading.Event()

    def every_second(self, look: Callable[[], None]) -> None:
        self._ticks.append(look)

    def every_few(self, look: Callable[[], None]) -> None:
        """Every 5 s. Neither may block."""
        self._looks.append(look)

    def start(self) -> None:
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def stop(self) -> None:
        self._over.set()

    def _run(self) -> None:
        count = 0
        wall, clock = time.time(), time.monotonic()
        began = clock
        while not self._over.wait(_TICK):
            late = time.monotonic() - began - _TICK
            wall_before, clock_before = wall, clock
            wall, clock = time.time(), time.monotonic()
            jumped = (wall - wall_before) - (clock - clock_before)
            if abs(jumped) > JUMPED or late > STOOD_STILL:
                self._guarded(self._on_jump, jumped if abs(jumped) > JUMPED else late)
            count += 1
            for look in [*self._ticks, *(self._looks if count % _EVERY == 0 else [])]:
                self._guarded(look)
            began = time.monotonic()

    @staticmethod
    def _guarded(look: Callable[..., None], *arguments: float) -> None:
        try:
            look(*arguments)
        except Exception:  # one part's trouble is not the other's
            log.exception("looking after the machine")
