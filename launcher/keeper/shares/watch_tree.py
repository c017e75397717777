"""The watched folders of one share, as a tree: what is true of a path ends with any folder above it."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher.keeper.shares.watch_share import Share


class Folder:
    """`full`: watched for the guest. Else only the names that lead to one that is are heeded."""

    __slots__ = ("begun", "full", "kids", "parent", "path", "share", "watch")

    def __init__(self, share: Share, path: bytes, parent: Folder | None, watch: int, begun: float) -> None:
        self.share = share
        self.path = path
        self.parent = parent
        self.watch = watch
        self.begun = begun  # time.monotonic()
        self.full = False
        self.kids: set[Folder] | None = None  # most have none

    def below(self) -> list[Folder]:
        """It itself, and all below it: paths can be deeper than calls."""
        found = [self]
        for folder in found:
            found += folder.kids or ()
        return found


class Tree:
    """Not locked: whoever has one does that. Only `watched` may be looked at by others."""

    def __init__(self) -> None:
        self.watched: dict[bytes, Folder] = {}  # those that are full, the oldest first
        self._guards: dict[bytes, Folder] = {}

    def get(self, path: bytes) -> Folder | None:
        return self.watched.get(path) or self._guards.get(path)

    def add(self, folder: Folder) -> None:
        self._guards[folder.path] = folder
        if folder.parent is not None:
            if folder.parent.kids is None:
                folder.parent.kids = set()
            folder.parent.kids.add(folder)

    def set_full(self, folder: Folder, *, full: bool) -> None:
        here, there = (self._guards, self.watched) if full else (self.watched, self._guards)
        folder.full = full
        if here.pop(folder.path, None) is not None:
            there[folder.path] = folder

    def remove(self, folder: Folder) -> list[Folder]:
        """It and all below it; these."""
        gone = folder.below()
        for one in gone:
            (self.watched if one.full else self._guards).pop(one.path, None)
        if (parent := folder.parent) is not None and parent.kids is not None:
            parent.kids.discard(folder)
            if not parent.kids:
                parent.kids = None
        return gone

    def clear(self) -> None:
        self.watched.clear()
        self._guards.clear()

    def useless(self) -> list[Folder]:
        """Guards that guard nothing; their removal may make others so."""
        return [folder for folder in self._guards.values() if not folder.kids]

    def tops(self) -> list[Folder]:
        """Watched folders with no watched one above them."""
        return [folder for folder in self.watched.values() if folder.parent is None or not folder.parent.full]

    def __len__(self) -> int:
        return len(self.watched) + len(self._guards)


def lineage(path: bytes) -> list[bytes]:
    """`/a/b`: `/`, `/a`, `/a/b`."""
    names = [name for name in path.split(b"/") if name]
    return [b"/" + b"/".join(names[:count]) for count in range(len(names) + 1)]


def within(path: bytes, roots: Container[bytes]) -> bool:
    """Whether it is one of them, or below one. Quick with a set."""
    while path not in roots:
        if path == b"/":
            return False
        path = path[: path.rfind(b"/")] or b"/"
    return True


def child(folder: bytes, name: bytes) -> bytes:
    return folder + name if folder == b"/" else folder + b"/" + name
