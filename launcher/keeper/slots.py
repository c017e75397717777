"""Starts, a few at a time: 64 docker clients that start together on two CPUs are all slow, queued the first is quick."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

# A start that has said nothing for so long waits for something else than a CPU.
HOLD_SECONDS: Final = 10.0


class Timer(Protocol):
    """What we use of threading.Timer."""

    def start(self) -> None: ...
    def cancel(self) -> None: ...


def _timer(seconds: float, call: Callable[[], None]) -> Timer:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    return timer


class StartSlots:
    """Admits `limit` starts at a time, in the order in which they came."""

    def __init__(self, limit: int, *, timer: Callable[[float, Callable[[], None]], Timer] = _timer) -> None:
        self._free = limit
        self._timer = timer
        self._queue: deque[Place] = deque()
        self._lock = threading.Lock()

    def enter(self) -> Place:
        """A place at the end of the queue, perhaps admitted at once."""
        place = Place(self)
        with self._lock:
            self._queue.append(place)
            self._admit()
        return place

    def leave(self, place: Place) -> None:
        with self._lock:
            if place in self._queue:
                self._queue.remove(place)
            elif place.timer is not None:
                place.timer.cancel()
                place.timer = None
                self._free += 1
            place.decided.set()
            self._admit()

    def _admit(self) -> None:
        while self._free and self._queue:
            place = self._queue.popleft()
            self._free -= 1
            place.admitted = True
            place.timer = self._timer(HOLD_SECONDS, place.leave)
            place.timer.start()
            place.decided.set()


class Place:
    """One start's place in the queue, and then its slot."""

    def __init__(self, slots: StartSlots) -> None:
        self._slots = slots
        self.decided = threading.Event()
        self.admitted = False
        self.timer: Timer | None = None

    def wait(self) -> bool:
        """Wait for the turn: True when it came, False when `leave` came first."""
        self.decided.wait()
        return self.admitted

    def leave(self) -> None:
        """Give the slot back, or the place in the queue up. More than once does no harm."""
        self._slots.leave(self)
