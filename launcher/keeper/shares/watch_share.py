"""One share as its server sees the watcher: `folder` and `made`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from launcher.keeper.shares.watch_storm import Storm
from launcher.keeper.shares.watch_tree import Tree, within
from launcher.keeper.shares.watch_window import Window
from launcher.sftp import events
from launcher.sftp.events import Event
from launcher.sftp.stat import Stat

if TYPE_CHECKING:
    from launcher.keeper.shares.watch_places import Places


class Bound(NamedTuple):
    """What containers have of a share: folders with all in them, and folders of which they have a file."""

    whole: frozenset[bytes] = frozenset()
    alone: frozenset[bytes] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.whole or self.alone)

    @property
    def folders(self) -> frozenset[bytes]:
        return self.whole | self.alone

    def holds(self, path: bytes) -> bool:
        return path in self.alone or within(path, self.whole)


class Share:
    """`folder` and `made` may be called by any thread and raise nothing; all else with the watcher's lock."""

    def __init__(self, identity: str, root: Path, places: Places, hidden: Callable[[bytes], bool]) -> None:
        self.identity = identity
        self.root = root
        self.bound = Bound()
        self.tree = Tree()
        self.window = Window(self._look)
        self.refused: dict[bytes, float] = {}
        self.ended = False
        self._places = places
        self._certain = places.certain
        self._storm = Storm()
        self._hidden = hidden

    def folder(self, path: bytes) -> bool:
        """Whether each later change of what is in this folder will be told; begins with it when a container has it. To be
        called before the folder is read."""
        if path in self.tree.watched:
            return self._certain
        return bool(self.bound) and self._places.begin(self, path)

    def made(self, path: bytes, stat: Stat | None) -> None:
        """The guest has changed this name, and that is how it is now; None: gone."""
        if (path[: path.rfind(b"/")] or b"/") in self.tree.watched:
            self.window.made(path, stat, time.monotonic())

    def host(self, path: bytes) -> Path:
        return self.root / os.fsdecode(path.lstrip(b"/"))

    def resolve(self, paths: Iterable[bytes]) -> Bound:
        """What is bound by these paths, over whatever links: the guest comes to it by its own path, when it is in the share.
        Looks at each, which may last: to be called without the lock."""
        top = Path(os.path.realpath(self.root))
        whole, alone = set(), set()
        for path in paths:
            real = Path(os.path.realpath(self.host(path)))
            if real.is_relative_to(top):
                path = b"/" + b"/".join(map(os.fsencode, real.relative_to(top).parts))
            if os.path.lexists(real) and not real.is_dir():
                alone.add(path[: path.rfind(b"/")] or b"/")
            else:
                whole.add(path)
        return Bound(frozenset(whole), frozenset(alone))

    def settle(self, now: float, heard_until: float) -> tuple[list[Event], bool]:
        """The events that are due; and whether there were too many to tell each."""
        found = [kept for event in self.window.settle(now, heard_until) if (kept := self._shown(event)) is not None]
        told = self._storm.thin(found, self.bound.folders, now) if found else []
        return told, len(told) < len(found)

    def _shown(self, event: Event) -> Event | None:
        if self._hidden(event.path):
            shown = event.path2 and not self._hidden(event.path2)
            return Event(events.CREATED, event.is_dir, event.path2) if shown else None
        if event.path2 and self._hidden(event.path2):
            return Event(events.DELETED, event.is_dir, event.path)
        return event

    def _look(self, path: bytes) -> Stat | None:
        try:
            found = os.lstat(self.host(path))
        except (OSError, ValueError):
            return None
        return Stat(
            found.st_mode, found.st_size, found.st_uid, found.st_gid, found.st_nlink, found.st_ino, found.st_dev, 0,
            found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns,
        )  # fmt: skip
