"""How the file system of a share compares names."""

from __future__ import annotations

import os
import unicodedata
from typing import Final, Protocol

from launcher.host.files import files

# HFS+ skips these when it compares (Apple's TN1150; the same list is in git's utf8.c, for CVE-2014-9390).
_SKIPPED: Final = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])


class Comparer(Protocol):
    """Two names with one `key` are, or may be, one entry."""

    exact: bool  # names are compared byte by byte: there is no other spelling

    def key(self, name: bytes) -> bytes:
        """What is compared, for names that the policy knows: rather one too many equal than one too few."""

    def same_spelling(self, name: bytes, other: bytes) -> bool:
        """Whether the names differ at most in how Unicode composes them: that is the file system's own business."""


class Exact:
    """Linux, and case-sensitive volumes elsewhere."""

    exact = True

    def key(self, name: bytes) -> bytes:
        return name

    def same_spelling(self, name: bytes, other: bytes) -> bool:
        return name == other


class Folded:
    """Case and Unicode's composition do not matter: APFS and HFS+ as they come, vfat, ext4 with casefold."""

    exact = False

    def key(self, name: bytes) -> bytes:
        if name.isascii():
            return name.lower()
        text = unicodedata.normalize("NFD", name.decode("utf-8", "surrogateescape").translate(_SKIPPED)).casefold()
        return unicodedata.normalize("NFD", text).encode("utf-8", "surrogateescape")

    def same_spelling(self, name: bytes, other: bytes) -> bool:
        return name == other or _composed(name) == _composed(other)


def _composed(name: bytes) -> str:
    return unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape"))


def slashed(path: bytes) -> bytes:
    """A path of this computer with slashes between its names, as the guest has them. Windows takes both."""
    return path.replace(os.fsencode(os.sep), b"/")


def comparer(root: int) -> Comparer:
    """That of the folder behind the descriptor: an entry of it is looked up in the other case. Nothing is written; where no
    name has letters it is what is usual on this system."""
    with os.scandir(root) as entries:
        for entry in entries:
            swapped = entry.name.swapcase()
            if swapped == entry.name or not entry.name.isascii():
                continue
            try:
                other = os.stat(swapped, dir_fd=root, follow_symlinks=False)
            except FileNotFoundError:
                return Exact()
            except OSError:
                continue
            # Two names that are there side by side are compared byte by byte; hard links of one file say nothing.
            if entry.inode() != other.st_ino:
                return Exact()
            if other.st_nlink == 1 or entry.is_dir(follow_symlinks=False):
                return Folded()
    return Exact() if files().CASE_SENSITIVE else Folded()
