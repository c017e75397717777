"""Files by descriptor on Linux."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import Final

_PATH: Final = 0o10000000  # O_PATH, asm-generic/fcntl.h; the same on x86-64 and arm64
_DIRECTORY: Final = getattr(os, "O_DIRECTORY", 0)
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0)
FOLDER: Final = _PATH | _DIRECTORY | _NOFOLLOW | _CLOEXEC
PIN: Final = _PATH | _CLOEXEC
CASE_SENSITIVE: Final = True

_OPENAT2: Final = 437  # asm-generic/unistd.h; since Linux 5.6, one number on all architectures
_NO_SYMLINKS: Final = 0x04 | 0x02  # RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS, linux/openat2.h
_LONGEST: Final = 4095
_NOREPLACE: Final = 1  # RENAME_NOREPLACE, linux/fs.h


class _How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_how = _How(FOLDER, 0, _NO_SYMLINKS)
_how_at: Final = ctypes.addressof(_how)
_how_size: Final = ctypes.sizeof(_how)
_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long
_renameat2 = getattr(_libc, "renameat2", None)  # glibc 2.28; musl 1.2.6
if _renameat2 is not None:
    _renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
# Not there (ENOSYS), or closed by a container's filter, which may say EPERM for what it does not know.
_MISSING: Final = (errno.ENOSYS, errno.EPERM)
_beneath = True


def open_folder(base: int, path: bytes) -> int:
    # 2.2 us for four components, with fstat and close; 5.6 us one by one.
    global _beneath
    if _beneath and len(path) <= _LONGEST:
        found = _syscall(_OPENAT2, base, path, _how_at, _how_size)
        if found >= 0:
            return int(found)
        number = ctypes.get_errno()
        if number not in _MISSING:
            raise OSError(number, os.strerror(number), path)
        _beneath = False
    return step_by_step(base, path)


def step_by_step(base: int, path: bytes) -> int:
    """The same with a descriptor for every component: for kernels before 5.6."""
    at = base
    for name in path.split(b"/"):
        try:
            following = os.open(name, FOLDER, dir_fd=at)
        finally:
            if at != base:
                os.close(at)
        at = following
    return at


def rename_new(base: int, name: bytes, new_base: int, new_name: bytes) -> None:
    if _renameat2 is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    if _renameat2(base, name, new_base, new_name, _NOREPLACE):
        number = ctypes.get_errno()
        # EINVAL: the file system does not know the flag, or a folder would go into itself.
        number = errno.ENOTSUP if number in (errno.ENOSYS, errno.EINVAL) else number
        raise OSError(number, os.strerror(number), name)


def change_mode(base: int, name: bytes, mode: int, ident: tuple[int, int]) -> None:
    # fchmod(2) refuses O_PATH descriptors, fchmodat(2) follows links; the way through /proc is chmod(2)'s own.
    held = os.open(name, _PATH | _NOFOLLOW | _CLOEXEC, dir_fd=base)
    try:
        found = os.fstat(held)
        if stat.S_ISLNK(found.st_mode) or (found.st_dev, found.st_ino) != ident:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        os.chmod(f"/proc/self/fd/{held}", mode)
    finally:
        os.close(held)
