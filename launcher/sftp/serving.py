"""What the requests of one session work with."""

from __future__ import annotations

import os
import stat as modes
import threading
from collections import deque
from typing import Final

from launcher.sftp import attrs, status
from launcher.sftp.handles import Handles, OpenFile
from launcher.sftp.served import Tree
from launcher.sftp.stat import Stat
from launcher.sftp.watched import Watched

# Types of packets (3 of the draft).
STATUS: Final = 101
HANDLE: Final = 102
DATA: Final = 103
NAME: Final = 104
ATTRS: Final = 105
REPLY: Final = 201

# The type of an answer, and what is behind its id, in one piece or in two.
Answer = tuple[int, bytes] | tuple[int, bytes, bytes]

_DONE: Final = (STATUS, status.full(status.OK, 0, 0))
_PLAIN_DONE: Final = (STATUS, status.plain(status.OK, b"done"))
_END: Final = (STATUS, status.full(status.EOF, 0, 0))
_PLAIN_END: Final = (STATUS, status.plain(status.EOF, b"end of file"))


def parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0] or b"/"


class Serving:
    """A tree, what is open of it, and how it is shown; `wherry` is whether the other side knows our extensions."""

    def __init__(self, tree: Tree, watched: Watched | None) -> None:
        self.tree = tree
        self.watched = watched
        self.handles = Handles()
        self.wherry = False
        self._untold: deque[OpenFile] = deque()
        self._telling = threading.Lock()

    def done(self) -> Answer:
        return _DONE if self.wherry else _PLAIN_DONE

    def end(self) -> Answer:
        return _END if self.wherry else _PLAIN_END

    def failed(self, error: OSError, flags: int = 0) -> Answer:
        number = status.linux(error.errno)
        if self.wherry:
            return STATUS, status.full(status.code(number), number, flags)
        return STATUS, status.plain(status.code(number), status.words_of(error))

    def attrs(self, stat: Stat, flags: int = 0) -> bytes:
        return attrs.full(stat, flags) if self.wherry else attrs.plain(stat)

    def flags_in(self, folder: bytes) -> int:
        """For the names in a folder; asked before they are looked at."""
        return attrs.WATCHED if self.watched is not None and self.watched.folder(folder) else 0

    def flags_of(self, path: bytes) -> int:
        """For one name; asked before it is looked at. Nobody watches what the root lies in."""
        if self.watched is None or path == b"/":
            return 0
        return self.flags_in(path.rpartition(b"/")[0] or b"/")

    def made(self, path: bytes) -> None:
        """The guest has made or changed what has this name."""
        if self.watched is not None:
            try:
                stat = self.tree.lstat(path)
            except OSError:  # somebody else was quicker
                stat = None
            self.watched.made(path, stat)

    def gone(self, path: bytes) -> None:
        if self.watched is not None:
            self.handles.rename(path, b"")
            self.watched.made(path, None)

    def moved(self, old: bytes, new: bytes) -> None:
        if self.watched is not None:
            self.handles.rename(new, b"")
            self.handles.rename(old, new)
            self.watched.made(old, None)
            self.made(new)

    def wrote(self, opened: OpenFile) -> None:
        """Told to the watcher when `tell` is called: once for many."""
        if self.watched is not None and not opened.untold:
            opened.untold = True
            self._untold.append(opened)

    def tell(self) -> None:
        """Before an answer to a WRITE goes out, and before the file is closed."""
        if self.watched is None:
            return
        with self._telling:  # whoever closes one of these waits here
            while self._untold:
                opened = self._untold.popleft()
                opened.untold = False
                self.changed(opened)

    def changed(self, opened: OpenFile) -> None:
        """The guest has changed an open file."""
        if self.watched is not None and opened.path:
            try:
                self.watched.made(opened.path, self.tree.fstat(opened.file))
            except OSError:
                pass


def steady(stat: Stat, flags: int) -> int:
    """The flags that hold for what is shown of a name: a folder's times change with what is in it, and a file with two names
    changes by the other one, both unseen by who watches the folder that the name is in."""
    return flags if stat.nlink == 1 and not modes.S_ISDIR(stat.mode) else 0


def regular(fd: int) -> bool:
    return modes.S_ISREG(os.fstat(fd).st_mode)
