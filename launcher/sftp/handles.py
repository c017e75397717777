"""What a session has open: files and folders, by the handles that the other side has for them."""

from __future__ import annotations

import errno
import itertools
import threading
from struct import Struct
from typing import Final

from launcher.sftp.served import Entries, File

MOST_OPEN: Final = 4_096
_KEY: Final = Struct(">Q")


class OpenFile:
    """A regular file. What it may be used for is what it was opened for, whatever the descriptor allows.

    `path` follows what the guest does with names, as long as somebody watches; it is empty when the file has lost its name.
    """

    __slots__ = ("appends", "file", "path", "readable", "untold", "writable")

    def __init__(self, file: File, path: bytes, *, readable: bool, writable: bool, appends: bool) -> None:
        self.file = file
        self.path = path
        self.readable = readable
        self.writable = writable
        self.appends = appends
        self.untold = False  # written to, and the watcher does not know

    def close(self) -> None:
        self.file.close()


class OpenFolder:
    """A folder that is being listed; `flags` hold for its names."""

    __slots__ = ("entries", "flags", "path")

    def __init__(self, entries: Entries, path: bytes, flags: int) -> None:
        self.entries = entries
        self.path = path
        self.flags = flags

    def close(self) -> None:
        self.entries.close()


class Handles:
    """At most MOST_OPEN at a time. No number is used again: an old handle is nobody else's. Safe to use from many threads."""

    def __init__(self) -> None:
        self._open: dict[bytes, OpenFile | OpenFolder] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._closed = False

    def __len__(self) -> int:
        return len(self._open)

    def check(self) -> None:
        """Before something is opened, and perhaps made. Raises OSError(EMFILE)."""
        if len(self._open) >= MOST_OPEN:
            raise OSError(errno.EMFILE, "the session has too much open")

    def add(self, opened: OpenFile | OpenFolder) -> bytes:
        """Its handle. Raises OSError(EMFILE), and then it is closed."""
        with self._lock:
            if len(self._open) < MOST_OPEN and not self._closed:
                key = _KEY.pack(next(self._numbers))
                self._open[key] = opened
                return key
        opened.close()
        raise OSError(errno.EMFILE, "the session has too much open")

    def file(self, key: bytes) -> OpenFile:
        """Raises OSError(EBADF)."""
        opened = self._open.get(key)
        if isinstance(opened, OpenFile):
            return opened
        raise OSError(errno.EBADF, "no such open file")

    def folder(self, key: bytes) -> OpenFolder:
        """Raises OSError(EBADF)."""
        opened = self._open.get(key)
        if isinstance(opened, OpenFolder):
            return opened
        raise OSError(errno.EBADF, "no such open folder")

    def rename(self, old: bytes, new: bytes) -> None:
        """Files that are open below `old` are below `new` now; they have no name any more when that is empty."""
        with self._lock:
            for opened in self._open.values():
                if isinstance(opened, OpenFile) and opened.path.startswith(old) and opened.path[len(old) :][:1] in (b"", b"/"):
                    opened.path = new and new + opened.path[len(old) :]

    def drop(self, key: bytes) -> OpenFile | OpenFolder:
        """No handle any more; not closed. Raises OSError(EBADF)."""
        with self._lock:
            opened = self._open.pop(key, None)
        if opened is None:
            raise OSError(errno.EBADF, "no such handle")
        return opened

    def close(self) -> None:
        """All of them, when nobody uses one any more."""
        with self._lock:
            opened, self._open, self._closed = list(self._open.values()), {}, True
        for one in opened:
            try:
                one.close()
            except OSError:  # NFS tells here what it could not write: there is nobody left to be told
                pass
