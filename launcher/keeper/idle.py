"""A machine that nobody uses is suspended by itself (idle_suspend), and the next use resumes it: the keeper stays for that.

Its socket and the published ports are held all the time. Who needs the machine asks `Nap.wake` first, and then waits for it as
for any start; so the connection that woke it is passed on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from launcher.keeper.events import Event, Events
    from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper.idle")

# How many uses are under way, and how many there ever were.
Uses = Callable[[], tuple[int, int]]
_MINUTE: Final = 60.0
# What an event of the engine says of its container: whether it runs from now on.
_RUNS: Final = {"start": True, "unpause": True, "die": False, "pause": False, "destroy": False}


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


class Containers:
    """How many run, by the engine's events; a running one is a use, unless `ignored`. Before the engine has told, one does."""

    def __init__(self, events: Events, ignored: Callable[[], bool]) -> None:
        self._ignored = ignored
        self._lock = threading.Lock()
        self._running: set[str] | None = None
        self._began = 0
        events.subscribe(self._on_event, self._on_resync)

    def uses(self) -> tuple[int, int]:
        """Containers that run, and how many ever began: one that came and went between two looks was a use too."""
        with self._lock:
            if self._ignored():
                return 0, self._began
            return 1 if self._running is None else len(self._running), self._began

    def _on_event(self, event: Event) -> None:
        name, action = str(event.get("Actor", {}).get("ID", "")), event.get("Action")
        if event.get("Type") != "container" or action not in _RUNS:
            return
        with self._lock:
            running = self._running if self._running is not None else set()
            self._running = running | {name} if _RUNS[action] else running - {name}
            self._began += _RUNS[action]

    def _on_resync(self, _connection: Connection, containers: list[dict[str, Any]]) -> None:
        with self._lock:
            self._running = {str(one["Id"]) for one in containers if one.get("State") in ("running", "restarting")}


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

    def used(self) -> bool:
        """Whether anything was used since the last look, or is now."""
        return self._told() != (False, self._counted)

    def _told(self) -> tuple[bool, int]:
        told = [uses() for uses in self._uses]
        return any(under_way for under_way, _ in told), sum(count for _, count in told)

    def look(self) -> None:
        under_way, counted = self._told()
        now = time.monotonic()
        if not self._running() or under_way or counted != self._counted:
            self._counted, self._since = counted, now
            return
        minutes = self._minutes()
        if minutes and now - self._since >= minutes * _MINUTE:
            self._since = now  # should it not come to that: not before as long again
            log.info("nobody used the machine for %d minutes", minutes)
            self._suspend()
