"""What is in a folder of a share."""

from __future__ import annotations

import os
import sys
from typing import Final

from launcher.sftp.entries import look
from launcher.sftp.remembered import Remembered
from launcher.sftp.rules import HIDDEN, Node, Rules, hidden
from launcher.sftp.shown import shown
from launcher.sftp.spelling import Spelling
from launcher.sftp.stat import Stat
from launcher.sftp.walk import Place

_LIST: Final = (
    os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
) | getattr(os, "O_CLOEXEC", 0)

_ENCODING: Final = sys.getfilesystemencoding()


def entries(place: Place, owners: Remembered, spelling: Spelling) -> Entries:
    """The entries one by one; the folder is opened and judged before it begins, so that errors come at once."""
    look(place, spelling)
    folder = os.open(place.name, _LIST, dir_fd=place.folder)
    try:
        # Once more, of what was opened: another folder may have taken the name.
        found = os.fstat(folder)
        rule, node = place.rules.met(place.rule, place.named, found.st_dev, found.st_ino)
        if hidden(rule, node):
            raise FileNotFoundError(place.path)
        return Entries(folder, rule, node, place.rules, owners)
    except BaseException:
        os.close(folder)
        raise


class Entries:
    """What is left of a folder; a generator would leave the descriptor open if it is closed before it has begun."""

    _folder = -1

    def __init__(self, folder: int, rule: int, node: Node | None, rules: Rules, owners: Remembered) -> None:
        self._listed = os.scandir(folder)
        self._folder = folder  # what scandir asks for each entry: its own copy only reads the names
        self._plain = rule != HIDDEN and (node is None or not node.children)
        self._node = node
        self._rule = rule
        self._rules = rules
        self._owners = owners

    def __iter__(self) -> Entries:
        return self

    def __next__(self) -> tuple[bytes, Stat]:
        for entry in self._listed:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # gone meanwhile
            name = entry.name.encode(_ENCODING, "surrogateescape")  # os.fsencode, in a third of the time
            if not self._plain or found.st_ino in self._rules.inodes:
                rule, node = self._rules.met(self._rule, self._rules.named(self._node, name), found.st_dev, found.st_ino)
                if hidden(rule, node):
                    continue
            return name, shown(found, self._owners, (self._folder, name))
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Close it; a second time does nothing."""
        folder, self._folder = self._folder, -1
        if folder >= 0:
            self._listed.close()
            os.close(folder)

    def __del__(self) -> None:
        self.close()
