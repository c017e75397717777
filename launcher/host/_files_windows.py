"""Files by descriptor on Windows: there are none of folders. `launcher.host.ntfiles` has handles instead."""

from __future__ import annotations

import errno
import os
from typing import Final

FOLDER: Final = os.O_RDONLY
PIN: Final = None  # a file that is open here could not be replaced; ids of NTFS have a count and do not come again
CASE_SENSITIVE: Final = False


def open_folder(base: int, path: bytes) -> int:  # noqa: ARG001
    raise _none(path)


def rename_new(base: int, name: bytes, new_base: int, new_name: bytes) -> None:  # noqa: ARG001
    raise _none(name)


def change_mode(base: int, name: bytes, mode: int, ident: tuple[int, int]) -> None:  # noqa: ARG001
    raise _none(name)


def _none(name: bytes) -> OSError:
    return OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), name)
