"""The character format of cpio (`odc`; POSIX.1-1997, pax, "cpio interchange format"), in which a flat package has its files."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from typing import Final

from installers.macos.tree import Entry

_MOST_NUMBERS: Final = 0o777777  # an inode number has six digits


def pack(entries: Sequence[Entry], epoch: int, *, level: int = 9) -> bytes:
    """The archive, through gzip, without a name or a time of its own."""
    assert len(entries) < _MOST_NUMBERS
    output = io.BytesIO()
    with gzip.GzipFile(fileobj=output, mode="wb", compresslevel=level, filename="", mtime=0) as file:
        for number, entry in enumerate(entries, 1):
            file.write(_record(entry.name, entry.mode, 2 if entry.is_folder else 1, number, epoch, entry.content))
        file.write(_record("TRAILER!!!", 0, 1, 0, 0, b""))
    return output.getvalue()


def _record(name: str, mode: int, links: int, number: int, epoch: int, content: bytes) -> bytes:
    text = name.encode() + b"\0"
    device = owner = group = special = 0
    head = "070707" + "".join(f"{value:06o}" for value in (device, number, mode, owner, group, links, special))
    return f"{head}{epoch:011o}{len(text):06o}{len(content):011o}".encode("ascii") + text + content
