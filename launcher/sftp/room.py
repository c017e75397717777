"""fallocate(2), where the C library has it. Python's posix_fallocate writes zeros where the file system cannot."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache
from typing import Final

_MOST: Final = (1 << 63) - 1


@cache
def _function() -> Callable[[int, int, int, int], int] | None:
    try:
        library = ctypes.CDLL(None, use_errno=True)
        function = getattr(library, "fallocate64", None) or library.fallocate
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    function.restype = ctypes.c_int
    call: Callable[[int, int, int, int], int] = function
    return call


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Raises OSError: EOPNOTSUPP where it cannot be."""
    if offset > _MOST or length > _MOST or mode >= 1 << 31:
        raise OSError(errno.EINVAL, "no such range")
    function = _function()
    if function is None:
        raise OSError(errno.EOPNOTSUPP, "not on this system")
    if function(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
