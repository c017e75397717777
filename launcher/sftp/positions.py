"""Reading and writing at a place of a file, also where the system has no pread(2).

There the file's own position is moved. Nobody else uses it meanwhile: of one handle, one thing is done at a time.
"""

from __future__ import annotations

import os


def seek_and_read(fd: int, size: int, offset: int) -> bytes:
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, size)


def seek_and_write(fd: int, data: memoryview, offset: int) -> int:
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)


read_at = getattr(os, "pread", seek_and_read)
_write_at = getattr(os, "pwrite", seek_and_write)


def write_all(fd: int, data: memoryview, offset: int, *, appends: bool) -> None:
    """Raises OSError; some of it may have been written then, as with write(2)."""
    while data:
        # Linux appends with pwrite as well, others write at the offset.
        wrote = os.write(fd, data) if appends else _write_at(fd, data, offset)
        if wrote == len(data):
            return
        data = data[wrote:]
        offset += wrote
