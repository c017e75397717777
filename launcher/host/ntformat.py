"""What Windows' kernel says of files, in its structures (MS-FSCC 2.4). Pure: it can be looked at on every system."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

ATTRIBUTE_READONLY: Final = 0x1
ATTRIBUTE_FOLDER: Final = 0x10
ATTRIBUTE_NORMAL: Final = 0x80
ATTRIBUTE_REPARSE: Final = 0x400


class Info(NamedTuple):
    """Of one entry. Times are in units of 100 ns since 1601; `tag` is that of a reparse point, else 0."""

    attributes: int
    tag: int
    size: int
    allocated: int
    links: int
    inode: int
    created: int
    accessed: int
    written: int
    changed: int


def information(data: bytes) -> Info:
    """FileAllInformation as far as the index number; without a tag."""
    created, accessed, written, changed, attributes = struct.unpack_from("<qqqqI", data)
    allocated, size, links = struct.unpack_from("<qqI", data, 40)
    (inode,) = struct.unpack_from("<Q", data, 64)
    return Info(attributes, 0, size, allocated, links, inode, created, accessed, written, changed)


def entries(data: bytes) -> Iterator[tuple[bytes, Info]]:
    """The entries in an answer of FileIdBothDirectoryInformation; links is 1."""
    at = 0
    while True:
        following, _, created, accessed, written, changed, size, allocated, attributes, length, tag = struct.unpack_from(
            "<IIqqqqqqIII", data, at
        )
        (inode,) = struct.unpack_from("<Q", data, at + 96)
        name = data[at + 104 : at + 104 + length]
        tag = tag if attributes & ATTRIBUTE_REPARSE else 0
        yield name, Info(attributes, tag, size, allocated, 1, inode, created, accessed, written, changed)
        if not following:
            return
        at += following


def named(flags: int, folder: int, name: bytes) -> bytes:
    """FILE_RENAME_INFORMATION and FILE_LINK_INFORMATION of 64-bit Windows: a name in the folder of that handle."""
    return struct.pack("<IxxxxQI", flags, folder, len(name)) + name + b"\0\0"
