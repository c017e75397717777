"""Which folders of which shares a watch stands for: one may be in two shares, or at two places of one."""

from __future__ import annotations

import errno
import heapq
import itertools
import logging
import threading
import time
from typing import Final

from launcher.keeper.shares import watch_items as items
from launcher.keeper.shares.watch_share import Bound, Share
from launcher.keeper.shares.watch_source import Source
from launcher.keeper.shares.watch_tree import Folder, lineage, within

log = logging.getLogger("wherry.shares.watch")

MOST: Final = 65_536  # the kernel keeps about 1 KB for each: an inode
SETTLED: Final = 60.0  # seconds after which a watch may make room for a newer one
_PAUSE: Final = 1.0  # seconds in which nothing is tried after there was no room
_REFUSED: Final = 10.0  # seconds in which a folder that cannot be watched is not tried again
_MOST_REFUSED: Final = 4_096
_NO_ROOM: Final = (errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class Places:
    """`begin` may be called by any thread; all else is called with `lock`."""

    def __init__(self, source: Source, lock: threading.Lock) -> None:
        self.lock = lock
        self.certain = source.certain
        self._source = source
        self._most = min(source.limit(), MOST)
        self._folders: dict[int, tuple[Folder, ...]] = {}
        self._full_until = 0.0

    def __len__(self) -> int:
        return len(self._folders)

    def of(self, watch: int) -> tuple[Folder, ...]:
        return self._folders.get(watch, ())

    # Begin

    def begin(self, share: Share, path: bytes) -> bool:
        """Watch a folder when a container has it. Whether it is watched."""
        now = time.monotonic()
        if not share.bound.holds(path) or now < self._full_until or now < share.refused.get(path, 0.0):
            return False
        with self.lock:
            if share.ended or not self._has_room(now):
                return False
            try:
                return self._begin(share, path, now) and self.certain
            except (OSError, ValueError) as error:
                self._refuse(share, path, now, error)
                return False

    def _begin(self, share: Share, path: bytes, now: float) -> bool:
        """From the root of the share down, each watched before the next is looked up: what happens to that is heard."""
        folder: Folder | None = None
        with self._source.walk(share.root) as walk:
            for place in lineage(path):
                if place != b"/":
                    walk.enter(place[place.rfind(b"/") + 1 :])
                found = share.tree.get(place)
                full = share.bound.holds(place)
                if found is None or (full and not found.full):
                    watch = walk.watch(full=full)
                    if found is not None and found.watch != watch:
                        return False  # it is another folder by now, of which we will hear
                    found = found or self._add(Folder(share, place, folder, watch, now))
                    share.tree.set_full(found, full=full)
                folder = found
        return True

    def _add(self, folder: Folder) -> Folder:
        folder.share.tree.add(folder)
        self._folders[folder.watch] = (*self.of(folder.watch), folder)
        return folder

    def _refuse(self, share: Share, path: bytes, now: float, error: Exception) -> None:
        number = error.errno if isinstance(error, OSError) else None
        if number in _NO_ROOM:
            if self._most != len(self._folders):
                log.warning("no more than %s folders can be watched: %s", len(self._folders), error)
            self._most = len(self._folders)
            self._full_until = now + _PAUSE
        elif number not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            if len(share.refused) >= _MOST_REFUSED:
                share.refused.clear()
            share.refused[path] = now + _REFUSED

    def _has_room(self, now: float) -> bool:
        if len(self._folders) < self._most:
            return True
        shares = {folders[0].share for folders in self._folders.values()}
        oldest = heapq.merge(*(_leaves(share) for share in shares), key=lambda folder: folder.begun)
        settled = itertools.takewhile(lambda folder: folder.begun <= now - SETTLED, oldest)
        chosen = list(itertools.islice(settled, max(1, self._most // 64)))
        for folder in chosen:
            self.lose_folder(folder)
        if not chosen:
            self._full_until = now + _PAUSE
        self._source.wake()
        return bool(chosen)

    # End

    def bind(self, share: Share, bound: Bound) -> None:
        """Only this is watched from now on."""
        share.bound = bound
        share.refused.clear()
        self._full_until = 0.0
        for folder in list(share.tree.watched.values()):
            if share.tree.watched.get(folder.path) is folder and not bound.holds(folder.path):
                self._unbind(folder)
        while useless := share.tree.useless():
            for folder in useless:
                self.end(folder)

    def _unbind(self, folder: Folder) -> None:
        if any(within(path, {folder.path}) for path in folder.share.bound.folders):  # it leads to one
            folder.share.window.note(folder.path, items.LOST, time.monotonic())
            folder.share.tree.set_full(folder, full=False)
        else:
            self.lose_folder(folder)

    def lose_folder(self, folder: Folder) -> None:
        """The guest is told that it is not watched any more."""
        folder.share.window.note(folder.path, items.LOST, time.monotonic())
        self.end(folder)

    def end(self, folder: Folder) -> None:
        """Of it and all below it nothing is told any more."""
        self._end(folder)
        lead = folder.parent
        while lead is not None and not lead.full and not lead.kids and lead.share.tree.get(lead.path) is lead:
            self._end(lead)
            lead = lead.parent

    def _end(self, folder: Folder) -> None:
        for one in folder.share.tree.remove(folder):
            others = tuple(other for other in self.of(one.watch) if other is not one)
            if others:
                self._folders[one.watch] = others
            elif self._folders.pop(one.watch, None) is not None:
                self._source.remove(one.watch)

    def lose(self) -> None:
        """Something was not heard: nothing counts as watched any more."""
        shares = {folder.share for folders in self._folders.values() for folder in folders}
        self._folders = {}
        for share in shares:
            share.window.everything([folder.path for folder in share.tree.tops()], time.monotonic())
            share.tree.clear()
        self._source.renew()


def _leaves(share: Share) -> list[Folder]:
    return sorted((folder for folder in share.tree.watched.values() if not folder.kids), key=lambda folder: folder.begun)
