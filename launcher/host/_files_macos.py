"""Files by descriptor on macOS."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import Final

_NOFOLLOW_ANY: Final = 0x20000000  # O_NOFOLLOW_ANY, since macOS 11: ELOOP when any component is a link
_DIRECTORY: Final = getattr(os, "O_DIRECTORY", 0)
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)
_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0)
FOLDER: Final = os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _NONBLOCK | _CLOEXEC
# APFS gives no number twice; and to open what is another program's own, or private, makes the system ask the user.
PIN: Final = None
CASE_SENSITIVE: Final = False
_EXCL: Final = 0x4  # RENAME_EXCL, sys/stdio.h; since macOS 10.12

_libc: Final = ctypes.CDLL(None, use_errno=True)
_renameatx_np = getattr(_libc, "renameatx_np", None)
if _renameatx_np is not None:
    _renameatx_np.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def open_folder(base: int, path: bytes) -> int:
    # O_NOFOLLOW together with O_NOFOLLOW_ANY is EINVAL (open(2)).
    return os.open(path, FOLDER & ~_NOFOLLOW | _NOFOLLOW_ANY, dir_fd=base)


def rename_new(base: int, name: bytes, new_base: int, new_name: bytes) -> None:
    if _renameatx_np is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    if _renameatx_np(base, name, new_base, new_name, _EXCL):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def change_mode(base: int, name: bytes, mode: int, ident: tuple[int, int]) -> None:
    found = os.stat(name, dir_fd=base, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode) or (found.st_dev, found.st_ino) != ident:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    os.chmod(name, mode, dir_fd=base, follow_symlinks=False)
