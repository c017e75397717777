"""Names on file systems that do not tell `README` from `readme`: the guest does, and must not lose one for the other."""

from __future__ import annotations

import os
import time
from typing import Final

from launcher.sftp.names import Comparer

_NAMES_A_SECOND: Final = 10_000  # a large folder is read less often, some percent of the time at most
_FOLDERS: Final = 512
_LIST: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


class Spelling:
    """How entries are really spelled. What a folder holds is remembered for a second, or until a name is not as it was."""

    def __init__(self, comparer: Comparer) -> None:
        self._comparer = comparer
        self._seen: dict[tuple[int, int], tuple[float, dict[bytes, bytes]]] = {}  # until when, and names by their keys

    def right(self, folder: int, name: bytes) -> bool:
        """Whether an entry that was found by this name is spelled so."""
        if self._comparer.exact or (name.isascii() and name.lower() == name.upper()):
            return True
        real = self.twin(folder, name)
        return real is None or self._comparer.same_spelling(real, name)

    def clash(self, folder: int, name: bytes) -> bool:
        """Whether a new entry of this name would be one that is there, spelled otherwise."""
        if self._comparer.exact:
            return False
        real = self.twin(folder, name)
        return real is not None and not self._comparer.same_spelling(real, name)

    def twin(self, folder: int, name: bytes) -> bytes | None:
        """The entry that the file system takes for this name, as it is spelled; None when there is none or it is unknown."""
        key = self._comparer.key(name)
        real = self._names(folder, again=False).get(key)
        if real is None or real == name:
            return real
        return self._names(folder, again=True).get(key)

    def made(self, folder: int, name: bytes) -> None:
        if not self._comparer.exact:
            self._names(folder, again=False)[self._comparer.key(name)] = name

    def gone(self, folder: int, name: bytes) -> None:
        if not self._comparer.exact:
            self._names(folder, again=False).pop(self._comparer.key(name), None)

    def _names(self, folder: int, *, again: bool) -> dict[bytes, bytes]:
        now = time.monotonic()
        found = os.fstat(folder)
        ident = (found.st_dev, found.st_ino)
        until, names = self._seen.get(ident, (0.0, {}))
        if now >= until or again:
            if len(self._seen) >= _FOLDERS:
                self._seen.clear()
            names = self._read(folder)
            self._seen[ident] = (now + max(1.0, len(names) / _NAMES_A_SECOND), names)
        return names

    def _read(self, folder: int) -> dict[bytes, bytes]:
        try:
            held = os.open(b".", _LIST, dir_fd=folder)
        except PermissionError:
            return {}
        try:
            return {self._comparer.key(name): name for name in map(os.fsencode, os.listdir(held))}  # noqa: PTH208
        finally:
            os.close(held)
