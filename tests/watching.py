"""A real watcher on a real folder, and what it has told."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from launcher.keeper.shares.watch import Watcher
from launcher.keeper.shares.watch_share import Share
from launcher.keeper.shares.watch_source import Source
from launcher.keeper.shares.watch_tree import lineage
from launcher.sftp.events import CREATED, DELETED, LOST, Event
from launcher.sftp.stat import Stat

GUARD = 60.0  # seconds; only a hang lasts so long


class Told:
    """`events` in the order of their coming, from all shares; `batches` as they came."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[Event]]] = []
        self.others: list[Callable[[str, Sequence[Event]], None]] = []
        self._changed = threading.Condition()

    def take(self, share: str, events: Sequence[Event]) -> None:
        for other in self.others:
            other(share, events)
        with self._changed:
            self.batches.append((share, list(events)))
            self._changed.notify_all()

    @property
    def events(self) -> list[Event]:
        with self._changed:
            return self._all()

    def _all(self) -> list[Event]:
        return [event for _, events in self.batches for event in events]

    def wait(self, condition: Callable[[list[Event]], bool]) -> list[Event]:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self._all()), GUARD), self.batches
        return self.events

    def clear(self) -> None:
        with self._changed:
            self.batches.clear()


class Watching:
    """A share `home` at `root`, as its server has it."""

    def __init__(self, root: Path, watcher: Watcher, told: Told) -> None:
        self.root = root
        self.watcher = watcher
        self.told = told
        self.share: Share = watcher.share("home", root)
        self._markers = 0

    def at_once(self) -> contextlib.AbstractContextManager[object]:
        """What is done within is looked at as a whole: a busy computer would see its steps, each a change of its own."""
        return self.share._places.lock

    def path(self, path: bytes) -> str:
        return os.path.join(str(self.root), os.fsdecode(path.lstrip(b"/")))

    def look(self, path: bytes) -> Stat | None:
        try:
            found = os.lstat(self.path(path))
        except OSError:
            return None
        return Stat(
            found.st_mode, found.st_size, found.st_uid, found.st_gid, found.st_nlink, found.st_ino, found.st_dev, 0,
            found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns,
        )  # fmt: skip

    def made(self, *paths: bytes) -> None:
        for path in paths:
            self.share.made(path, self.look(path))

    def settled(self, folder: bytes) -> list[Event]:
        """All that was told until now, and nothing of a marker in `folder` (which is watched) by which that is known."""
        while not self._marked(folder):  # in a storm it is not told
            pass
        found = [event for event in self.told.events if b"/.marker-" not in event.path]
        self.told.clear()
        return found

    def _marked(self, folder: bytes) -> bool:
        self._markers += 1
        path = folder.rstrip(b"/") + b"/.marker-%d" % self._markers
        for kind, work in ((CREATED, os.mkdir), (DELETED, os.rmdir)):
            seen = len(self.told.events)
            work(self.path(path))
            marks = (Event(kind, True, path), *(Event(LOST, True, lost) for lost in lineage(folder)))
            found = self.told.wait(lambda events: any(mark in events[seen:] for mark in marks))  # noqa: B023
            if marks[0] not in found:
                return False
        return True


@contextlib.contextmanager
def watching(root: Path, source: Source | None = None) -> Iterator[Watching]:
    told = Told()
    watcher = Watcher(told.take, source=source)
    try:
        yield Watching(root, watcher, told)
    finally:
        watcher.close()
