"""From what the kernel says of a watch to what has happened at a path."""

from __future__ import annotations

import os
from collections.abc import Iterable

from launcher.host import heard as words
from launcher.host.heard import Heard
from launcher.keeper.shares import watch_items as items
from launcher.keeper.shares.watch_places import Places
from launcher.keeper.shares.watch_tree import Folder, child

_BITS = (
    (words.CREATE, items.CREATED),
    (words.DELETE, items.DELETED),
    (words.MOVED_FROM, items.DELETED | items.HALF),
    (words.MOVED_TO, items.CREATED | items.HALF),
    (words.MODIFY, items.MODIFIED),
    (words.ATTRIB, items.ATTRIB),
    (words.CLOSE_WRITE, items.CLOSED),
)
_ENDED = words.DELETE_SELF | words.UNMOUNT
_MOST_WAITING = 50_000  # names, of one share


class Reader:
    """Called with the watcher's lock."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def take(self, heard: Iterable[Heard], now: float) -> None:
        for one in heard:
            if one.mask & words.OVERFLOW:
                self._places.lose()
                return
            for folder in self._places.of(one.watch):
                if not one.name:
                    self._take_own(folder, one.mask, now)
                elif folder.full:
                    self._take_name(folder, one, now)
                elif one.mask & words.NAMES:
                    self._take_lead(folder, one)

    def _take_own(self, folder: Folder, mask: int, now: float) -> None:
        """What has happened to the folder itself; the one above tells it too, where that is watched for the guest."""
        is_top = folder.parent is None or not folder.parent.full
        if mask & _ENDED and is_top:
            folder.share.window.note(folder.path, items.LOST, now)
        if mask & words.UNMOUNT and not is_top:
            folder.share.window.note(folder.path, items.LOST, now)
        if mask & words.ATTRIB and is_top and folder.full:
            folder.share.window.note(folder.path, items.ATTRIB, now, is_dir=True)
        if mask & words.IGNORED:
            self._places.end(folder)

    def _take_lead(self, folder: Folder, one: Heard) -> None:
        """Another folder stands now where one that is watched was found, or none."""
        led = folder.share.tree.get(child(folder.path, one.name))
        if led is not None:
            self._places.lose_folder(led)

    def _take_name(self, folder: Folder, one: Heard, now: float) -> None:
        share = folder.share
        path = child(folder.path, one.name)
        is_dir = bool(one.mask & words.IS_DIR)
        if is_dir and one.mask & (words.MOVED_FROM | words.DELETE):
            self._leave(folder, path, one.mask, now)
        bits = next((bits for mask, bits in _BITS if one.mask & mask), 0)
        if bits:
            share.window.note(path, bits, now, is_dir=is_dir, cookie=one.cookie)
        if is_dir and one.mask & words.MOVED_TO:
            self._arrive(folder, path, now)
        if len(share.window) > _MOST_WAITING:
            share.window.everything([top.path for top in share.tree.tops()], now)

    def _arrive(self, folder: Folder, path: bytes, now: float) -> None:
        """What is watched by that path may be an empty folder that had to go, or this one already: nobody knows."""
        folder.share.window.note(path, items.LOST, now)
        there = folder.share.tree.get(path)
        if there is not None:
            self._places.end(there)

    def _leave(self, folder: Folder, path: bytes, mask: int, now: float) -> None:
        """The path does not lead to that folder any more. When it is gone, all in it was told to be gone; but when another has
        taken its place, the guest may have looked at that by what it knew of this one, and takes the one for the other."""
        if mask & words.MOVED_FROM or os.path.lexists(folder.share.host(path)):
            folder.share.window.note(path, items.LOST, now)
        left = folder.share.tree.get(path)
        if left is not None:
            self._places.end(left)
