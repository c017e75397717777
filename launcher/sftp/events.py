"""Events for the guest that wait until it asks for them (`events@wherry`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from launcher.sftp.packets import string, u32

CREATED: Final = 1
DELETED: Final = 2
RENAMED: Final = 3
MODIFIED: Final = 4
ATTRIBUTES: Final = 5
LOST: Final = 6

MOST_WAITING: Final = 1_000
# Of one answer; an event has two paths of 4,096 bytes at most, so that an answer stays far below the longest packet.
_MOST_BYTES: Final = 128 << 10


class Event(NamedTuple):
    """A change on this computer; `path2` is the new name of what was renamed, else empty."""

    kind: int
    is_dir: bool
    path: bytes
    path2: bytes = b""


EVERYTHING: Final = Event(LOST, True, b"/")


class Waiting:
    """In the order of their coming. When more than MOST_WAITING wait, they become one that says everything may have changed.

    Not locked: whoever has one does that.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._lost = False

    def __bool__(self) -> bool:
        return bool(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def add(self, events: Iterable[Event]) -> None:
        if self._lost:  # nothing is to be said beyond that until it has been said
            return
        for event in events:
            if not self._events or self._events[-1] != event:
                self._events.append(event)
            if len(self._events) > MOST_WAITING:
                self._events.clear()
                self._events.append(EVERYTHING)
                self._lost = True
                return

    def take(self) -> bytes:
        """The body of one answer, with as many as fit into it."""
        taken: list[bytes] = []
        size = 0
        while self._events and size < _MOST_BYTES:
            kind, is_dir, path, path2 = self._events.popleft()
            taken.append(bytes((kind, is_dir)) + string(path) + string(path2))
            size += len(taken[-1])
        self._lost = self._lost and bool(self._events)
        return u32(len(taken)) + b"".join(taken)
