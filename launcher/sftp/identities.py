"""Places by device and inode, kept up to date: a place that the host renames, links or makes later is still that place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from launcher.host.files import files
from launcher.sftp.names import Comparer, slashed
from launcher.sftp.rules import Node, Rules, find, settle

_PINS: Final = 256  # places that have been renamed or replaced; the oldest is let go first
_LINKS: Final = 8  # links one behind the other, from one place of the share to another

_UNHELD: Final = -1

Ident = tuple[int, int]
_Known = tuple[int, bytes]  # a rule, and the place that it was given for


class Identities:
    """Knows the places of one policy. Their inodes are held open, so that none is given to another file while it is known."""

    def __init__(self, root: bytes, places: dict[bytes, int], base: int, comparer: Comparer) -> None:
        """`root` is the real path of the share; `places` maps paths below it to rules; `base` is the rule of the rest."""
        self._root = root
        self._prefix = root.rstrip(b"/") + b"/"
        self._places = places
        self._base = base
        self._comparer = comparer
        self._pins: dict[Ident, tuple[int, bytes]] = {}  # a descriptor and the place, oldest first
        self._known: dict[bytes, _Known] = {}
        self._tree = Node(b"")

    def __del__(self) -> None:
        for held, _ in self._pins.values():
            if held != _UNHELD:
                os.close(held)

    def rules(self) -> Rules:
        """Look at every place once: some hundred calls of stat(2)."""
        known = self._with_targets()
        if known != self._known or not self._known:
            self._tree = self._grown(known)
            self._known = known
        now: dict[Ident, Node] = {}
        self._look(self._tree, self._root, b"", now)
        return Rules(self._tree, self._former(now) | now, self._comparer)

    def _grown(self, places: dict[bytes, _Known]) -> Node:
        tree = Node(b"")
        tree.rule = self._base
        for path, (rule, place) in places.items():
            node = find(tree, path, self._comparer, make=True)
            assert node is not None
            node.rule, node.place = rule, place
        settle(tree, self._base)
        return tree

    def _with_targets(self) -> dict[bytes, _Known]:
        """The places, and what those are that are links into the share: a profile that is kept in a folder of dotfiles is
        replaced through that folder, too."""
        known = {path: (rule, path) for path, rule in self._places.items()}
        links = dict(known)
        plain: set[bytes] = set()
        for _ in range(_LINKS):
            links = {path: origin for old, origin in links.items() for path in self._targets(old, plain) if path not in known}
            if not links:
                break
            known |= links
        return known

    def _targets(self, path: bytes, plain: set[bytes]) -> list[bytes]:
        """For each component of the path that is a link: the paths below the root with its target in its place. `plain` are
        those that have been seen to be no links."""
        found: list[bytes] = []
        names = path.split(b"/")
        for index in range(len(names)):
            here = self._prefix + b"/".join(names[: index + 1])
            if here in plain:
                continue
            try:
                target = os.readlink(here)  # noqa: PTH115
            except FileNotFoundError:
                break
            except OSError:
                plain.add(here)  # EINVAL
                continue
            found += self._inside(here, target, names[index + 1 :])
        return found

    def _inside(self, link: bytes, target: bytes, rest: list[bytes]) -> Iterator[bytes]:
        """Where a link leads, as far as that is in the share: link by link, and with all links on the way followed."""
        whole = os.path.join(os.path.realpath(os.path.dirname(link)), target, *rest)  # noqa: PTH118, PTH120
        folder, name = os.path.split(whole)
        for path in (os.path.normpath(whole), os.path.join(os.path.realpath(folder), name)):  # noqa: PTH118
            if slashed(path).startswith(self._prefix):
                yield slashed(path)[len(self._prefix) :]

    def _look(self, node: Node, path: bytes, below: bytes, now: dict[Ident, Node]) -> None:
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return
        ident = (found.st_dev, found.st_ino)
        other = now.get(ident)
        if other is None or (other.rule or 0) < (node.rule or 0):
            now[ident] = node
        if below:
            self._pin(ident, path, below)
        for child in node.children.values():
            self._look(child, path + b"/" + child.name, below + b"/" + child.name if below else child.name, now)

    def _pin(self, ident: Ident, path: bytes, below: bytes) -> None:
        """Also of the folders on the way: where the host puts one, what is in it is still a place."""
        if ident in self._pins:
            self._pins[ident] = (self._pins[ident][0], below)
            return
        held = _held(ident, path)
        if held is None:
            return
        self._pins[ident] = (held, below)
        if len(self._pins) > _PINS:
            self._let_go(next(iter(self._pins)))

    def _let_go(self, ident: Ident) -> None:
        held, _ = self._pins.pop(ident)
        if held != _UNHELD:
            os.close(held)

    def _former(self, now: dict[Ident, Node]) -> dict[Ident, Node]:
        """What has been a place and is still there, by another name."""
        former = {}
        for ident, (held, below) in list(self._pins.items()):
            if ident in now:
                continue
            node = find(self._tree, below, self._comparer, make=False)
            if node is None or (held != _UNHELD and os.fstat(held).st_nlink == 0):
                self._let_go(ident)
            else:
                former[ident] = node
        return former


def _held(ident: Ident, path: bytes) -> int | None:
    """A descriptor that keeps the inode, _UNHELD where none is needed; None when it cannot be had."""
    flags = files().PIN
    if flags is None:
        return _UNHELD
    try:
        held = os.open(path, flags)
    except OSError:
        return None
    found = os.fstat(held)
    if (found.st_dev, found.st_ino) != ident:
        os.close(held)  # replaced in this moment; the next look finds it
        return None
    return held
