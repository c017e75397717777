"""inotify(7), called directly: one descriptor and one thread for all folders.

watchdog's observer takes a thread for each folder that is watched on its own: 1,003 threads and 21 MB for 1,000 folders, where
this takes 8 MB for 20,000 (with all that keeper/shares knows of them). Its older versions take an inotify instance for each,
too, of which a system gives a user 128.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from launcher.host.heard import CONTENT, DELETE_SELF, NAMES, Heard

# include/uapi/linux/inotify.h
_ONLY_DIR: Final = 0x1000000
_EXCLUDE_UNLINKED: Final = 0x4000000
_MASK_ADD: Final = 0x20000000
_ALWAYS: Final = DELETE_SELF | _ONLY_DIR | _MASK_ADD | _EXCLUDE_UNLINKED
_HEADER: Final = struct.Struct("iIII")
_READ: Final = 64 << 10
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LIMITS: Final = Path("/proc/sys/fs/inotify")

# include/uapi/linux/magic.h, and the file systems' own: what changes through this kernel only. Others (NFS, SMB, FUSE, 9p,
# those of clusters) change without a word, and what is not known here may.
_LOCAL: Final = frozenset({
    0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x2FC12FC1, 0xCA451A4E, 0x52654973, 0x3153464A, 0x3434,  # ext, xfs, btrfs…
    0x01021994, 0x858458F6, 0x794C7630,  # tmpfs, ramfs, overlayfs
    0x4D44, 0x2011BAB0, 0x7366746E, 0x482B,  # vfat, exfat, ntfs3, hfsplus
    0x73717368, 0xE0F5E1E2, 0x9660, 0x15013346,  # squashfs, erofs, iso9660, udf
})  # fmt: skip


class Inotify:
    """`walk`, `remove` and `wake` may be called by any thread, one at a time; `wait`, `read` and `renew` by one."""

    certain: Final = True

    def __init__(self) -> None:
        """Raises OSError, as EMFILE when the user's instances are used up."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._poll = select.poll()
        self._descriptor = self._open()
        try:
            self._woken = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            os.close(self._descriptor)
            raise
        self._poll.register(self._woken, select.POLLIN)

    def limit(self) -> int:
        """How many folders we take: half of what the system gives the user, who has other programs that watch."""
        try:
            return int((_LIMITS / "max_user_watches").read_text()) // 2
        except (OSError, ValueError):
            return 4096

    @contextlib.contextmanager
    def walk(self, root: Path) -> Iterator[Walk]:
        walk = Walk(self, root)
        try:
            yield walk
        finally:
            os.close(walk.descriptor)

    def add(self, folder: int, mask: int) -> int:
        """Watch an open folder, O_PATH will do. Raises OSError."""
        if not self._is_local(folder):
            raise OSError(errno.ENOTSUP, "changes of this file system are not all told")
        return self._checked(
            self._libc.inotify_add_watch(self._descriptor, b"/proc/self/fd/%d" % folder, ctypes.c_uint32(mask | _ALWAYS))
        )

    def remove(self, watch: int) -> None:
        """What was heard before may still come. One that has ended by itself is no error."""
        self._libc.inotify_rm_watch(self._descriptor, watch)

    def trees(self, folders: Sequence[Path]) -> None:
        """Folders are watched one by one here."""

    def wait(self, seconds: float | None) -> None:
        """Until there is something to read, `wake` was called, or the time is over."""
        self._poll.poll(None if seconds is None else max(0.0, seconds * 1000))
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._woken)

    def wake(self) -> None:
        os.eventfd_write(self._woken, 1)

    def read(self) -> list[Heard]:
        """What there is now, as much as one read gives; empty: nothing."""
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return []
        heard = []
        at = 0
        while at < len(data):
            watch, mask, cookie, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            heard.append(Heard(watch, mask, cookie, data[at : at + length].rstrip(b"\0")))
            at += length
        return heard

    def renew(self) -> None:
        """Forget all watches, and what was heard. Each removed one by one would be heard of, too. Raises OSError."""
        self._poll.unregister(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = self._open()

    def close(self) -> None:
        os.close(self._descriptor)
        os.close(self._woken)

    def _open(self) -> int:
        descriptor = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._poll.register(descriptor, select.POLLIN)
        return descriptor

    def _is_local(self, folder: int) -> bool:
        buffer = ctypes.create_string_buffer(256)  # struct statfs, whose first field is the type
        self._checked(self._libc.fstatfs(folder, buffer))
        return ctypes.cast(buffer, ctypes.POINTER(ctypes.c_long))[0] & 0xFFFFFFFF in _LOCAL

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


class Walk:
    """By descriptor, so that nobody can put a link in the way."""

    def __init__(self, inotify: Inotify, root: Path) -> None:
        self._inotify = inotify
        self.descriptor = os.open(root, _FOLDER)

    def enter(self, name: bytes) -> None:
        """Raises OSError, also when it is a link or no folder."""
        inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self.descriptor)
        os.close(self.descriptor)
        self.descriptor = inner

    def watch(self, *, full: bool) -> int:
        """Raises OSError: ENOSPC when the user has no more watches, ENOTSUP when not all changes would be told."""
        return self._inotify.add(self.descriptor, NAMES | CONTENT if full else NAMES)
