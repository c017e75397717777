"""One name, and what was heard of it."""

from __future__ import annotations

from typing import Final

from launcher.sftp import events
from launcher.sftp.events import Event

CREATED: Final = 1
DELETED: Final = 2
MODIFIED: Final = 4
ATTRIB: Final = 8
CLOSED: Final = 16  # after it was open for writing
LOST: Final = 32
RENAMED: Final = 64
HALF: Final = 128  # of a rename: DELETED | HALF, CREATED | HALF


class Item:
    """`first` and `last` are when something was heard of it."""

    __slots__ = ("bits", "first", "is_dir", "is_there", "last", "path", "path2", "was_there")

    def __init__(
        self, path: bytes, bits: int, now: float, *, is_dir: bool, path2: bytes = b"", first: float | None = None
    ) -> None:
        self.path = path
        self.path2 = path2
        self.bits = bits
        self.first = now if first is None else first
        self.last = now
        self.is_dir = is_dir
        self.was_there = not bits & CREATED
        self.is_there = not bits & DELETED

    def add(self, bits: int, now: float, *, is_dir: bool) -> None:
        self.bits |= bits
        self.last = now
        self.is_dir = is_dir
        if bits & (CREATED | DELETED):
            self.is_there = bool(bits & CREATED)

    def paths(self) -> tuple[bytes, ...]:
        return (self.path, self.path2) if self.path2 else (self.path,)

    def names(self) -> list[Event]:
        """That it has come, has gone, or is another now. One that came and went may have been seen meanwhile: it is gone."""
        if not self.is_there:
            return [Event(events.DELETED, self.is_dir, self.path)]
        if not self.bits & CREATED:
            return []
        created = Event(events.CREATED, self.is_dir, self.path)
        return [Event(events.DELETED, self.is_dir, self.path), created] if self.was_there else [created]
