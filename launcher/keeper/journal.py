"""What happened since the machine's start began, for everybody who watches, whenever they came."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

Event = dict[str, Any]


class Journal:
    """An append-only list of events that any number of threads follow; who comes when another start began hears of that."""

    def __init__(self) -> None:
        self._first = 0
        self._events: list[Event] = []
        self._changed = threading.Condition()

    def add(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def begin(self) -> None:
        """What comes from here on belongs to another start."""
        with self._changed:
            self._first = len(self._events)

    def find(self, name: str) -> Event | None:
        """The first event of that name, if it has come."""
        with self._changed:
            return next((event for event in self._events[self._first :] if event["event"] == name), None)

    def wait(self, wanted: Callable[[Event], bool], timeout: float | None = None) -> Event | None:
        """The first event, past or future, that is wanted; None when none came within `timeout` seconds."""
        with self._changed:
            seen = self._first

            def arrived() -> Event | None:
                nonlocal seen
                while seen < len(self._events):
                    seen += 1
                    if wanted(self._events[seen - 1]):
                        return self._events[seen - 1]
                return None

            return self._changed.wait_for(arrived, timeout)

    @property
    def end(self) -> int:
        """Where the next event will be; for `follow`."""
        with self._changed:
            return len(self._events)

    def follow(self, since: int | None = None) -> Iterator[Event]:
        """Every event of this start from the first on, or from an `end` on, and what comes later; blocks for the next one, for
        ever."""
        position = self._first if since is None else since
        while True:
            with self._changed:
                while position >= len(self._events):
                    self._changed.wait()
                event = self._events[position]
            position += 1
            yield event
