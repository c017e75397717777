"""When a file was made, on Linux: its stat has no birth time, statx(2) does."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

_AT_EMPTY_PATH: Final = 0x1000
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_AT_NO_AUTOMOUNT: Final = 0x800
_STATX_BTIME: Final = 0x800


class _Statx(ctypes.Structure):
    """struct statx of linux/stat.h as far as the birth time; the kernel writes 256 bytes."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("before", ctypes.c_uint8 * 76),  # as far as stx_atime, and that
        ("seconds", ctypes.c_int64),
        ("nanoseconds", ctypes.c_uint32),
        ("after", ctypes.c_uint8 * 164),
    )


@cache
def _statx() -> Any:
    """The function of the C library (glibc 2.28, musl 1.2.5); None in an older one."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
    return function


def birth_time(at: tuple[int, bytes] | int) -> int | None:
    """In microseconds, of a name in a folder (links are not followed) or of an open file. None where the file system keeps none
    or the file is not there."""
    function = _statx()
    if function is None:
        return None
    folder, name, flags = (at, b"", _AT_EMPTY_PATH) if isinstance(at, int) else (*at, _AT_SYMLINK_NOFOLLOW)
    found = _Statx()
    if function(folder, name, flags | _AT_NO_AUTOMOUNT, _STATX_BTIME, ctypes.byref(found)) != 0:
        return None
    if not found.mask & _STATX_BTIME:
        return None
    return int(found.seconds) * 1_000_000 + int(found.nanoseconds) // 1000
