"""What a share shows of an entry, and what may be changed of it."""

from __future__ import annotations

from typing import Final, NamedTuple

NOW: Final = -1  # a time of Change: the present one


class Stat(NamedTuple):
    """What is shown to the guest. `mode` has the type, as of inode(7); `blocks` are of 512 bytes; times are since 1970."""

    mode: int
    size: int
    uid: int
    gid: int
    nlink: int
    ino: int
    dev: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class Change(NamedTuple):
    """What is to become of an entry; None leaves it."""

    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
