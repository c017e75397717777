"""The archive around a flat package (xar: a header, a table of contents in XML through zlib, then what it points to)."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from xml.sax.saxutils import escape

_SHA1: Final = 1
_OWNER: Final = "<uid>0</uid><gid>0</gid>"
_SUM: Final = 20  # bytes of the table's checksum, first in the heap


def pack(files: Mapping[str, bytes], epoch: int) -> bytes:
    """An archive of `files`; a name may have one folder. Contents are stored as they are: ours are compressed already."""
    heap = bytearray(_SUM)
    numbers = iter(range(1, 2 * len(files) + 1))
    listing = ""
    for folder in dict.fromkeys(name.rpartition("/")[0] for name in files):
        inner = ""
        number = next(numbers)
        for name, content in files.items():
            above, _, own = name.rpartition("/")
            if above == folder:
                inner += _file(next(numbers), own, content, len(heap))
                heap += content
        listing += inner if not folder else _folder(number, folder, inner)
    made = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    toc = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<xar><toc>'
        f'<checksum style="sha1"><offset>0</offset><size>{_SUM}</size></checksum><creation-time>{made}</creation-time>'
        f"{listing}</toc></xar>\n"
    ).encode()
    packed = zlib.compress(toc, 9)
    heap[:_SUM] = _digest(packed).digest()
    return struct.pack(">4sHHQQI", b"xar!", 28, 1, len(packed), len(toc), _SHA1) + packed + bytes(heap)


def _folder(number: int, name: str, inner: str) -> str:
    return f'<file id="{number}"><name>{escape(name)}</name><type>directory</type><mode>0755</mode>{_OWNER}{inner}</file>'


def _file(number: int, name: str, content: bytes, offset: int) -> str:
    digest, size = _digest(content).hexdigest(), len(content)
    return (
        f'<file id="{number}"><name>{escape(name)}</name><type>file</type><mode>0644</mode>{_OWNER}'
        f"<data><length>{size}</length><offset>{offset}</offset><size>{size}</size>"
        '<encoding style="application/octet-stream"/>'
        f'<archived-checksum style="sha1">{digest}</archived-checksum>'
        f'<extracted-checksum style="sha1">{digest}</extracted-checksum></data></file>'
    )


def _digest(content: bytes) -> hashlib._Hash:
    """What the format has; a signature, and SHA256SUMS, protect the whole."""
    return hashlib.sha1(content, usedforsecurity=False)
