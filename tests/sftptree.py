"""A plain tree for the tests of the server loop: a folder, by paths. It confines nothing."""

from __future__ import annotations

import errno
import os
import stat as modes
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from launcher.sftp.stat import NOW, Change, Stat


@dataclass(frozen=True, eq=False)
class PlainFile:
    fd: int
    path: bytes

    def close(self) -> None:
        os.close(self.fd)


class PlainTree:
    parallel = True

    def __init__(self, root: Path) -> None:
        self.root = os.fsencode(root)

    def place(self, path: bytes) -> bytes:
        return self.root + path

    def lstat(self, path: bytes) -> Stat:
        return shown(os.lstat(self.place(path)))

    def stat(self, path: bytes) -> Stat:
        return shown(os.stat(self.place(path)))

    def open(self, path: bytes, flags: int, mode: int) -> PlainFile:
        place = self.place(path)
        try:
            found = os.lstat(place).st_mode
            if not modes.S_ISREG(found) and not modes.S_ISLNK(found):  # the system refuses a link, with ELOOP
                raise OSError(errno.EISDIR if os.path.isdir(place) else errno.ENXIO, "not a regular file")
        except FileNotFoundError:
            pass
        return PlainFile(os.open(place, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode), path)

    def fstat(self, file: PlainFile) -> Stat:
        return shown(os.fstat(file.fd))

    def change(self, path: bytes, change: Change, *, follow: bool) -> None:
        place = self.place(path)
        if change.size is not None:
            os.truncate(place, change.size)
        if change.mode is not None:
            os.chmod(place, change.mode)
        if change.atime_ns is not None or change.mtime_ns is not None:
            found = os.stat(place, follow_symlinks=follow)
            os.utime(place, ns=times(change, found), follow_symlinks=follow)

    def fchange(self, file: PlainFile, change: Change) -> None:
        if change.size is not None:
            os.ftruncate(file.fd, change.size)
        if change.mode is not None:
            os.fchmod(file.fd, change.mode)
        if change.atime_ns is not None or change.mtime_ns is not None:
            os.utime(file.fd, ns=times(change, os.fstat(file.fd)))

    def listdir(self, path: bytes) -> Generator[tuple[bytes, Stat], None, None]:
        with os.scandir(self.place(path)) as entries:
            for entry in entries:
                yield entry.name, shown(entry.stat(follow_symlinks=False))

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(self.place(path), mode)

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self.place(path))

    def unlink(self, path: bytes) -> None:
        os.unlink(self.place(path))

    def rename(self, old: bytes, new: bytes, replace: bool) -> None:
        if not replace and os.path.lexists(self.place(new)):
            raise FileExistsError(errno.EEXIST, "is there")
        os.rename(self.place(old), self.place(new))

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self.place(path))

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(self.place(path))

    def link(self, old: bytes, new: bytes) -> None:
        os.link(self.place(old), self.place(new), follow_symlinks=False)

    def statvfs(self, path: bytes) -> os.statvfs_result:
        return os.statvfs(self.place(path))


def times(change: Change, found: os.stat_result) -> tuple[int, int]:
    now = time.time_ns()
    asked = (change.atime_ns, found.st_atime_ns), (change.mtime_ns, found.st_mtime_ns)
    first, second = (now if value == NOW else before if value is None else value for value, before in asked)
    return first, second


def shown(found: os.stat_result) -> Stat:
    return Stat(
        found.st_mode, found.st_size, found.st_uid, found.st_gid, found.st_nlink, found.st_ino, found.st_dev,
        found.st_blocks, found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns,
    )  # fmt: skip
