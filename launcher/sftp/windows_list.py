"""What is in a folder of a Windows share."""

from __future__ import annotations

import stat
from collections.abc import Callable

from launcher.sftp.rules import Rules, hidden
from launcher.sftp.stat import Stat
from launcher.sftp.windows_file import kind
from launcher.sftp.windows_names import shown
from launcher.sftp.windows_walk import Entry, WindowsWalk

_DOTS = (".".encode("utf-16-le"), "..".encode("utf-16-le"))


def listed(walk: WindowsWalk, handle: int, rules: Rules, folder: Entry, stat_of: Callable[[Entry], Stat]) -> Listed:
    """The entries one by one; `handle` is the folder's, and closed at the end. Sizes and times are as the folder has them,
    which may be behind for a file that is being written, or has other names. Names that the guest cannot have are left out."""
    return Listed(walk, handle, rules, folder, stat_of)


class Listed:
    """A generator would leave the handle open if it is closed before it has begun."""

    def __init__(self, walk: WindowsWalk, handle: int, rules: Rules, folder: Entry, stat_of: Callable[[Entry], Stat]) -> None:
        self._walk = walk
        self._handle = handle
        self._rules = rules
        self._folder = folder
        self._stat_of = stat_of
        self._listing = walk.files.listing(handle)

    def __iter__(self) -> Listed:
        return self

    def __next__(self) -> tuple[bytes, Stat]:
        if self._handle < 0:
            raise StopIteration
        for units, info in self._listing:
            name = None if units in _DOTS else shown(units)
            if name is None:
                continue
            rule, node = self._rules.met(
                self._folder.rule, self._rules.named(self._folder.node, name), self._walk.device, info.inode
            )
            if hidden(rule, node):
                continue
            if kind(info) != stat.S_IFLNK:
                return name, self._stat_of(Entry(0, info, rule, node))
            try:
                opened, _ = self._walk.files.open(self._handle, units, 0)
            except OSError:
                continue  # gone meanwhile
            try:
                return name, self._stat_of(Entry(opened, self._walk.files.info(opened), rule, node))
            finally:
                self._walk.files.close(opened)
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Close it; a second time does nothing."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            self._walk.files.close(handle)

    def __del__(self) -> None:
        self.close()
