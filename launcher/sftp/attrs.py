"""ATTRS (draft-ietf-secsh-filexfer-02, 5) with the extended pairs of provisioning/shares.md."""

from __future__ import annotations

import errno
from struct import Struct
from typing import Final

from launcher.sftp.packets import Malformed, Reader
from launcher.sftp.stat import NOW, Change, Stat

SIZE: Final = 0x1
OWNER: Final = 0x2
PERMISSIONS: Final = 0x4
TIMES: Final = 0x8
EXTENDED: Final = 0x80000000
_ALL: Final = SIZE | OWNER | PERMISSIONS | TIMES

WATCHED: Final = 1

# utimensat(2)
UTIME_NOW: Final = 0x3FFFFFFF
UTIME_OMIT: Final = 0x3FFFFFFE

_BILLION: Final = 1_000_000_000
_NOBODY: Final = 0xFFFFFFFF  # stays as it is, as for chown(2)
_MASK32: Final = 0xFFFFFFFF
_MASK64: Final = 0xFFFFFFFFFFFFFFFF
_MOST_SIZE: Final = (1 << 63) - 1

_PLAIN: Final = Struct(">IQIIIII")
_FULL: Final = Struct(">IQIIIIIII11sIQIIQqIqIqI")
_TIME: Final = Struct(">qIqI")


def plain(stat: Stat) -> bytes:
    """The fields of version 3. Times are whole seconds from 1970 to 2106: one outside is shown as the nearest."""
    return _PLAIN.pack(_ALL, stat.size, stat.uid & _MASK32, stat.gid & _MASK32, stat.mode, *_seconds(stat))


def _seconds(stat: Stat) -> tuple[int, int]:
    return min(max(stat.atime_ns // _BILLION, 0), _MASK32), min(max(stat.mtime_ns // _BILLION, 0), _MASK32)


def full(stat: Stat, flags: int) -> bytes:
    """`plain`, and `stat@wherry` with these flags."""
    mode, size, uid, gid, nlink, ino, _dev, blocks, atime_ns, mtime_ns, ctime_ns = stat
    atime, atime_rest = divmod(atime_ns, _BILLION)
    mtime, mtime_rest = divmod(mtime_ns, _BILLION)
    ctime, ctime_rest = divmod(ctime_ns, _BILLION)
    return _FULL.pack(
        _ALL | EXTENDED, size, uid & _MASK32, gid & _MASK32, mode,
        atime if 0 <= atime <= _MASK32 else min(max(atime, 0), _MASK32),
        mtime if 0 <= mtime <= _MASK32 else min(max(mtime, 0), _MASK32),
        1, 11, b"stat@wherry", 60,
        ino & _MASK64, min(nlink, _MASK32), flags, blocks, atime, atime_rest, mtime, mtime_rest, ctime, ctime_rest,
    )  # fmt: skip


def change(reader: Reader) -> Change:
    """What the guest wants. Raises Malformed, and OSError(EINVAL) for a size or a time that cannot be."""
    flags = reader.u32()
    if not flags:  # as nearly every OPEN
        return _NOTHING
    if flags & ~(_ALL | EXTENDED):
        raise Malformed(f"ATTRS with flags {flags:#x}")
    size = reader.u64() if flags & SIZE else None
    uid, gid = (_owner(reader), _owner(reader)) if flags & OWNER else (None, None)
    mode = reader.u32() & 0o7777 if flags & PERMISSIONS else None
    atime, mtime = (reader.u32() * _BILLION, reader.u32() * _BILLION) if flags & TIMES else (None, None)
    if flags & EXTENDED:
        atime, mtime = _extended(reader, atime, mtime)
    if size is not None and size > _MOST_SIZE:
        raise OSError(errno.EFBIG, "no file is so large")
    return Change(size, mode, uid, gid, atime, mtime)


_NOTHING: Final = Change()


def _owner(reader: Reader) -> int | None:
    value = reader.u32()
    return None if value == _NOBODY else value


def _extended(reader: Reader, atime: int | None, mtime: int | None) -> tuple[int | None, int | None]:
    """Pairs that nobody knows are skipped (5 of the draft). A count that is a lie ends where the packet does."""
    for _ in range(reader.u32()):
        kind, value = reader.string(), reader.string()
        if kind == b"time@wherry":
            if len(value) != _TIME.size:
                raise Malformed("time@wherry has another length")
            seconds, rest, modified, modified_rest = _TIME.unpack(value)
            atime, mtime = _time(seconds, rest), _time(modified, modified_rest)
    return atime, mtime


def _time(seconds: int, rest: int) -> int | None:
    if rest == UTIME_OMIT:
        return None
    if rest == UTIME_NOW:
        return NOW
    # What utimensat(2) can be given: times in nanoseconds that fit into 64 bits.
    if rest >= _BILLION or not -(1 << 33) < seconds < 1 << 33:
        raise OSError(errno.EINVAL, "no such time")
    at = seconds * _BILLION + rest
    return at if at != NOW else 0
