"""The places of a share that have rules of their own: a tree of names, and the same places by identity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from launcher.sftp.names import Comparer

# What may be done in a place; of two that apply, the higher one does.
OPEN: Final = 0
GUARDED: Final = 1  # the host runs code from it: it is read, nothing else
READ_ONLY: Final = 2
HIDDEN: Final = 3


class Node:
    """A place, or a folder on the way to one. `rule` is None on the way."""

    __slots__ = ("children", "leads", "name", "place", "rule")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.rule: int | None = None
        self.place: bytes | None = None  # below the root, as it was named
        self.children: dict[bytes, Node] = {}
        self.leads = False  # there is something given at it or under it, though it is hidden

    def walk(self, path: bytes = b"") -> Iterator[tuple[bytes, Node]]:
        """Every node with its path below this one, parents first; this one is b""."""
        yield path, self
        for child in self.children.values():
            yield from child.walk(path + b"/" + child.name if path else child.name)


class Rules:
    """What the policy knows at one moment; never changed, so that it can be read while the next one is made."""

    __slots__ = ("comparer", "exact", "ids", "inodes", "root")

    def __init__(self, root: Node, ids: dict[tuple[int, int], Node], comparer: Comparer) -> None:
        self.root = root
        self.ids = ids
        self.inodes = frozenset(inode for _, inode in ids)  # most entries have none of these: one look-up, and nothing made
        self.comparer = comparer
        self.exact = comparer.exact

    def named(self, node: Node | None, name: bytes) -> Node | None:
        """The child of that name as the file system compares, existing or not."""
        if node is None or not node.children:
            return None
        return node.children.get(name if self.exact else self.comparer.key(name))

    def met(self, inherited: int, named: Node | None, device: int, inode: int) -> tuple[int, Node | None]:
        """The rule and the node of an entry with that identity in a place with the rule `inherited`."""
        rule = inherited if named is None or named.rule is None else named.rule
        if inode in self.inodes:
            known = self.ids.get((device, inode))
            if known is not None and known is not named:
                if known.rule is not None and known.rule > rule:
                    return known.rule, known
                return rule, named or known
        return rule, named


def hidden(rule: int, node: Node | None) -> bool:
    """Whether the guest may not know of an entry with that rule and node."""
    return rule == HIDDEN and not (node is not None and node.leads)


def find(root: Node, path: bytes, comparer: Comparer, *, make: bool) -> Node | None:
    """The node of a path below the root; with `make` it and those on the way are made."""
    node = root
    for name in path.split(b"/") if path else ():
        key = comparer.key(name)
        child = node.children.get(key)
        if child is None:
            if not make:
                return None
            child = node.children[key] = Node(name)
        node = child
    return node


def settle(node: Node, inherited: int) -> bool:
    """Make the rules of a tree final: only what was given is freer than the place that it is in. Notes on hidden nodes whether
    something under them is not, and says so."""
    if node.rule in (GUARDED, HIDDEN):
        node.rule = max(node.rule, inherited)
    rule = inherited if node.rule is None else node.rule
    below = [settle(child, rule) for child in node.children.values()]
    node.leads = rule != HIDDEN or any(below)
    return node.leads
