"""Paths to descriptors: the folder of an entry is opened without following a link, and judged by all components on the way."""

from __future__ import annotations

import errno
import os
from typing import Final

from launcher.host.files import files
from launcher.sftp.policy import Policy
from launcher.sftp.rules import OPEN, Node, Rules, hidden

_LONGEST_PATH: Final = 4096
_KNOWN: Final = 4096  # folders whose way has been judged
_Known = tuple[int, int, Node | None, int]  # device, inode, node and rule of a folder
_files = files()
_open_folder = _files.open_folder


def fail(number: int, path: bytes) -> OSError:
    """The error of that errno, ready to be raised."""
    return OSError(number, os.strerror(number), path)


class Place:
    """A folder of the share that is open, and the name of an entry in it. `folder` is closed by Walk.leave."""

    __slots__ = ("folder", "name", "named", "node", "path", "rule", "rules")

    def __init__(self, folder: int, name: bytes, node: Node | None, rule: int, rules: Rules, path: bytes) -> None:
        self.folder = folder
        self.name = name
        self.node = node  # of the folder
        self.rule = rule  # of the folder
        self.rules = rules
        self.path = path
        self.named = None if node is None else node if name == b"." else rules.named(node, name)


class Walk:
    """The root of a share as a descriptor, and the way from there. For any number of threads."""

    def __init__(self, root: bytes, policy: Policy) -> None:
        self.root = os.open(root, _files.FOLDER & ~getattr(os, "O_NOFOLLOW", 0))
        self._policy = policy
        # The way to a folder, as judged within this second: a folder that is found at the same path with the same identity is
        # the same folder. Only the host could have put a hidden one in between: guests cannot move what holds one, and their
        # renames forget all this. With the rules it was judged by: one is never used with the other's.
        self._judgements: tuple[Rules | None, dict[bytes, _Known]] = (None, {})

    def replace(self, policy: Policy) -> None:
        """Another policy, from the next path on; from any thread."""
        self._policy = policy

    def look_again(self) -> None:
        """A folder was made that may be one on the way to a place."""
        self._policy.look_again()

    def forget(self) -> None:
        """A folder was moved: no way that was judged before holds. The places are where they were, guests do not move them."""
        self._judgements = (self._judgements[0], {})

    def _judged_by_now(self) -> tuple[Rules, dict[bytes, _Known]]:
        rules = self._policy.rules()
        judged_by, ways = self._judgements
        if rules is not judged_by:
            ways = {}
            self._judgements = (rules, ways)
        return rules, ways

    def to(self, path: bytes) -> Place:
        """The place of a path; the root is `.` in itself. Raises OSError: ENOENT for what is hidden on the way."""
        if (
            b"/." in path
            or b"//" in path
            or b"\0" in path
            or path[:1] != b"/"
            or path[-1:] == b"/"
            or len(path) > _LONGEST_PATH
        ):
            path = cleaned(path)
        head, _, name = path.rpartition(b"/")
        rules, ways = self._judged_by_now()
        if not head:
            node = rules.root
            return Place(self.root, name or b".", node, node.rule or OPEN, rules, path)
        try:
            folder = _open_folder(self.root, head[1:])
        except FileNotFoundError:
            raise
        except OSError:
            # Which component it was, and whether that is in something hidden, where nothing is a file or a folder.
            folder, known = self._judged(head, rules, ways)
            return Place(folder, name, known[2], known[3], rules, path)
        try:
            seen = ways.get(head)
            found = os.fstat(folder)
            if seen is not None and seen[1] == found.st_ino and seen[0] == found.st_dev:
                return Place(folder, name, seen[2], seen[3], rules, path)
        except BaseException:
            os.close(folder)
            raise
        os.close(folder)
        folder, known = self._judged(head, rules, ways)
        return Place(folder, name, known[2], known[3], rules, path)

    def leave(self, place: Place) -> None:
        if place.folder != self.root:
            os.close(place.folder)

    def _judged(self, head: bytes, rules: Rules, ways: dict[bytes, _Known]) -> tuple[int, _Known]:
        """Step by step: the folder and what is known of the way to it."""
        way, at, node, rule, names = self._nearest(head, rules, ways)
        known = (0, 0, node, rule)
        if len(ways) >= _KNOWN:
            ways.clear()
        try:
            for name in names:
                named = rules.named(node, name)
                if hidden(rule if named is None or named.rule is None else named.rule, named):
                    raise fail(errno.ENOENT, head)
                following = os.open(name, _files.FOLDER, dir_fd=at)
                if at != self.root:
                    os.close(at)
                at = following
                found = os.fstat(at)
                rule, node = rules.met(rule, named, found.st_dev, found.st_ino)
                if hidden(rule, node):
                    raise fail(errno.ENOENT, head)
                way += b"/" + name
                known = ways[way] = (found.st_dev, found.st_ino, node, rule)
        except BaseException:
            if at != self.root:
                os.close(at)
            raise
        return at, known

    def _nearest(
        self, head: bytes, rules: Rules, ways: dict[bytes, _Known]
    ) -> tuple[bytes, int, Node | None, int, list[bytes]]:
        """The folder above, when it has been judged and is still the same, or the root; and the names that lead on."""
        above, _, name = head.rpartition(b"/")
        known = ways.get(above)
        if known is not None:
            folder = _open_folder(self.root, above[1:])
            found = os.fstat(folder)
            if known[1] == found.st_ino and known[0] == found.st_dev:
                return above, folder, known[2], known[3], [name]
            os.close(folder)
        return b"", self.root, rules.root, rules.root.rule or OPEN, head[1:].split(b"/")

    def close(self) -> None:
        """When nobody uses it any more; what comes later fails with EBADF, and never finds another folder by our number."""
        root, self.root = self.root, -1
        if root >= 0:
            os.close(root)


def cleaned(path: bytes) -> bytes:
    """The path without `.` and doubled slashes. Raises OSError: EINVAL for `..`, NUL and what is not absolute, ENAMETOOLONG."""
    if len(path) > _LONGEST_PATH:
        raise fail(errno.ENAMETOOLONG, path[:64])
    if not path.startswith(b"/") or b"\0" in path:
        raise fail(errno.EINVAL, path)
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise fail(errno.EINVAL, path)
    return b"/" + b"/".join(names)
