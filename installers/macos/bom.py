"""A bill of materials: what macOS remembers of an installed package (lsbom(8)). Apple describes the format nowhere; this is as
bomutils writes it, which Installer takes: numbered blocks of bytes, a table of where they are, and a few that have names.

    BomInfo  how many paths    Paths  the tree of them    HLIndex, VIndex, Size64  empty trees, but they have to be there
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final

from installers.macos.tree import Entry

_HEAD: Final = 512  # bytes before the first block
_LEAF: Final = 256  # paths in a leaf of the tree
_FILE, _FOLDER, _LINK = 1, 2, 3


class _Store:
    """Blocks by number; number 0 is none."""

    def __init__(self) -> None:
        self._body = bytearray()
        self._places: list[tuple[int, int]] = [(0, 0)]
        self._names: list[tuple[int, str]] = []

    @property
    def next(self) -> int:
        return len(self._places)

    def add(self, block: bytes, name: str = "") -> int:
        number = self.next
        self._places.append((_HEAD + len(self._body), len(block)))
        self._body += block
        if name:
            self._names.append((number, name))
        return number

    def tree(self, root: int, size: int, paths: int, name: str = "") -> int:
        return self.add(b"tree" + struct.pack(">IIIIB", 1, root, size, paths, 0), name)

    def bytes(self) -> bytes:
        named = struct.pack(">I", len(self._names))
        named += b"".join(struct.pack(">IB", number, len(name)) + name.encode("ascii") for number, name in self._names)
        index = struct.pack(">I", len(self._places)) + b"".join(struct.pack(">II", *place) for place in self._places)
        index += struct.pack(">I", 2) + bytes(16)  # the list of free places: none
        at_names = _HEAD + len(self._body)
        head = b"BOMStore" + struct.pack(
            ">IIIIII", 1, len(self._places) - 1, at_names + len(named), len(index), at_names, len(named)
        )
        return head.ljust(_HEAD, b"\0") + bytes(self._body) + named + index


def pack(entries: Sequence[Entry], epoch: int) -> bytes:
    """The bill of all entries, of which a folder comes before what is in it."""
    store = _Store()
    store.add(struct.pack(">III", 1, len(entries) + 1, 1) + bytes(16), "BomInfo")
    store.tree(_paths(store, _records(store, entries, epoch)), 4096, len(entries), "Paths")
    empty = struct.pack(">HHII", 1, 0, 0, 0)
    store.tree(store.add(empty), 4096, 0, "HLIndex")
    store.add(struct.pack(">IIIB", 1, store.tree(store.add(empty), 128, 0), 0, 0), "VIndex")
    store.tree(store.add(empty), 4096, 0, "Size64")
    return store.bytes()


def _records(store: _Store, entries: Sequence[Entry], epoch: int) -> list[tuple[int, int]]:
    """For each path the numbers of its two blocks: what it is, and its name below its folder."""
    numbers: dict[str, int] = {}
    found = []
    for number, entry in enumerate(entries, 1):
        numbers[entry.name] = number
        kind = _FOLDER if entry.is_folder else _LINK if entry.is_link else _FILE
        target = entry.content + b"\0" if entry.is_link else b""
        checksum = 0 if entry.is_folder else cksum(entry.content)
        about = struct.pack(">BBHHIIIIBII", kind, 1, 3, entry.mode, 0, 0, epoch, len(entry.content), 1, checksum, len(target))
        described = store.add(struct.pack(">II", number, store.add(about + target)))
        folder, _, name = entry.name.rpartition("/")
        above = numbers[folder] if folder else 0
        found.append((described, store.add(struct.pack(">I", above) + name.encode() + b"\0")))
    return found


def _paths(store: _Store, records: Sequence[tuple[int, int]]) -> int:
    """The number of the tree's root: a leaf, or a page that names the last path of each leaf."""
    leaves = [records[start : start + _LEAF] for start in range(0, len(records), _LEAF)]
    first = store.next
    for place, leaf in enumerate(leaves):
        following = first + place + 1 if place + 1 < len(leaves) else 0
        before = first + place - 1 if place else 0
        head = struct.pack(">HHII", 1, len(leaf), following, before)
        store.add(head + b"".join(struct.pack(">II", *record) for record in leaf))
    if len(leaves) == 1:
        return first
    page = b"".join(struct.pack(">II", first + place, leaf[-1][1]) for place, leaf in enumerate(leaves))
    return store.add(struct.pack(">HHII", 0, len(leaves), 0, 0) + page)


_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def cksum(content: bytes) -> int:
    """The checksum of POSIX's cksum: a CRC that begins with 0, over the bytes and then their number, its lowest byte first.

    It takes the highest bit of a byte first and zlib's, of the same polynomial, the lowest: so all bits are mirrored for it.
    """
    length = len(content)
    tail = length.to_bytes((length.bit_length() + 7) // 8, "little")
    register = zlib.crc32((content + tail).translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{register:032b}"[::-1], 2) ^ 0xFFFFFFFF
