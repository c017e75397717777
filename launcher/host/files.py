"""Files by descriptor, as far as Linux and macOS differ; Windows has no descriptors of folders."""

from __future__ import annotations

import sys
from functools import cache
from typing import Protocol, cast


class FilesModule(Protocol):
    """What `_files_linux` and `_files_macos` have. Every function raises OSError; names are single components."""

    FOLDER: int  # flags of os.open that give a folder to go on from, never through a link
    PIN: int | None  # flags of os.open that keep an inode from another file, without opening its content; None: not needed
    CASE_SENSITIVE: bool  # how file systems usually compare names here

    def open_folder(self, base: int, path: bytes) -> int:
        """A descriptor of the folder at a relative path below `base`; no component may be a link, the last one neither."""

    def rename_new(self, base: int, name: bytes, new_base: int, new_name: bytes) -> None:
        """Rename, and fail with FileExistsError when the new name is taken, in one step; ENOTSUP where that cannot be."""

    def change_mode(self, base: int, name: bytes, mode: int, ident: tuple[int, int]) -> None:
        """chmod(2) on the entry itself, which must be (device, inode) `ident` and no link; FileNotFoundError otherwise."""


@cache
def files() -> FilesModule:
    """The module of the system that we run on."""
    if sys.platform == "win32":
        from launcher.host import _files_windows as module
    elif sys.platform == "darwin":
        from launcher.host import _files_macos as module
    else:
        from launcher.host import _files_linux as module
    return cast(FilesModule, module)
