"""A machine that nobody uses is suspended by itself (idle_suspend), and the next use resumes it: the keeper stays for that.

Its socket and the published ports are held all the time. Who needs the machine asks `Nap.wake` first, and then waits for it as
for any start; so the connection that woke it is passed on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger("wherry.keeper.idle")

# How many uses are under way, and how many there ever were.
Uses = Callable[[], tuple[int, int]]
_MINUTE: Final = 60.0


class Nap:
    """Whether the machine sleeps, or is on the way to it, by itself; and whether somebody has called meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # for all below
        self._on_wake: Callable[[], None] | None = None  # there while it sleeps
        self._woken = False

    def begin(self, on_wake: Callable[[], None]) -> None:
        """From here on `wake` is heard; `on_wake` is called at most once, in the thread of who calls it."""
        with self._lock:
            self._on_wake, self._woken = on_wake, False

    def end(self) -> None:
        with self._lock:
            self._on_wake = None

    @property
    def woken(self) -> bool:
        with self._lock:
            return self._woken

    def wake(self) -> bool:
        """Somebody needs the machine. False, and nothing is done, while it does not sleep."""
        with self._lock:
            tell = self._on_wake if not self._woken else None
            sleeps = self._woken = self._on_wake is not None
        if tell is not None:
            log.info("somebody needs the machine")
            tell()
        return sleeps


class Idle:
    """Looks every few seconds whether anything was used since the last look."""

    def __init__(self, minutes: Callable[[], int], running: Callable[[], bool], suspend: Callable[[], None]) -> None:
        """`minutes`: after how many of quiet, 0 for never. `suspend` returns at once."""
        self._minutes = minutes
        self._running = running
        self._suspend = suspend
        self._uses: list[Uses] = []
        self._counted = -1
        self._since = time.monotonic()

    def count(self, uses: Uses) -> None:
        """One more part that tells of its uses."""
        self._uses.append(uses)

    def look(self) -> None:
        told = [uses() for uses in self._uses]
        counted, now = sum(count for _, count in told), time.monotonic()
        if not self._running() or any(under_way for under_way, _ in told) or counted != self._counted:
            self._counted, self._since = counted, now
            return
        minutes = self._minutes()
        if minutes and now - self._since >= minutes * _MINUTE:
            self._since = now  # should it not come to that: not before as long again
            log.info("nobody used the machine for %d minutes", minutes)
            self._suspend()
