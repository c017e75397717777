"""Locks on files of Windows: LockFileEx, which has a shared one, and waits neither for ten seconds nor past Ctrl-C."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from ctypes import wintypes
from functools import cache
from pathlib import Path
from typing import Any, Final

_NOW: Final = 0x1  # LOCKFILE_FAIL_IMMEDIATELY
_EXCLUSIVE: Final = 0x2
_TRIES_EVERY: Final = 0.05  # Ctrl-C does not end a wait of LockFileEx itself

with contextlib.suppress(ImportError):  # elsewhere this module is only read
    import msvcrt


class _Overlapped(ctypes.Structure):
    """OVERLAPPED: the lock is on the first byte."""

    _fields_ = (("internal", ctypes.c_size_t * 2), ("offset", wintypes.DWORD * 2), ("event", wintypes.HANDLE))


def lock(path: Path, *, wait: bool) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while not _locked(descriptor, _NOW | _EXCLUSIVE):
            if not wait:
                os.close(descriptor)
                return None
            time.sleep(_TRIES_EVERY)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def lock_taken(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except PermissionError:  # a program has it for itself alone, as QEMU has its lock file
        return True
    try:
        return not _locked(descriptor, _NOW)
    finally:
        os.close(descriptor)


@cache
def _function() -> Any:
    library: Any = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    number = wintypes.DWORD
    library.LockFileEx.argtypes = (wintypes.HANDLE, number, number, number, number, ctypes.c_void_p)
    return library.LockFileEx


def _locked(descriptor: int, how: int) -> bool:
    handle = msvcrt.get_osfhandle(descriptor)  # type: ignore[attr-defined,unused-ignore]
    return bool(_function()(handle, how, 0, 1, 0, ctypes.byref(_Overlapped())))
