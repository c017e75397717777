"""An entry of a Windows share: as it is there, as the guest sees it, and open."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from typing import Final, NamedTuple

from launcher.host.ntfiles import NtFiles
from launcher.host.ntformat import ATTRIBUTE_FOLDER, Info
from launcher.sftp.remembered import Owner, Remembered
from launcher.sftp.stat import Stat
from launcher.sftp.windows_names import SURROGATE

_EPOCH: Final = 116_444_736_000_000_000  # 1970 in units of 100 ns since 1601
_HOLE: Final = 1 << 20  # bytes; less is filled with zeros
_BITS: Final = 0o755  # of what the guest has given no mode: `./gradlew` runs
_SPECIAL: Final = {  # MS-FSCC 2.1.2.1: sockets of Windows and WSL, and what WSL makes by mknod
    0x80000023: stat.S_IFSOCK,
    0x80000024: stat.S_IFIFO,
    0x80000025: stat.S_IFCHR,
    0x80000026: stat.S_IFBLK,
}


class Ident(NamedTuple):
    """What tells a file from others, in the names of os.stat_result. The time is 0 where inodes do not come again."""

    st_dev: int
    st_ino: int
    st_birthtime_ns: int


class File:
    """A regular file of the share that is open. `fd` is a descriptor of the C library, `path` the one that it was opened by."""

    __slots__ = ("__weakref__", "_end", "_files", "appends", "fd", "inode", "lock", "path", "rule")

    def __init__(self, files: NtFiles, fd: int, path: bytes, rule: int, inode: int, *, appends: bool) -> None:
        self._files = files
        self._end = 0  # it was as long as that at least
        self.fd = fd
        self.path = path
        self.rule = rule
        self.inode = inode
        self.appends = appends
        self.lock = threading.Lock()  # holds `fd` open while something is done by it for another request

    def before_write(self, offset: int) -> None:
        """To be called before something is written there: far behind the end it makes a hole, which would be zeros else."""
        if not self.appends and offset > self._end + _HOLE:
            self._end = max(offset, may_have_holes(self._files, self._files.handle(self.fd), offset))

    def close(self) -> None:
        """Close it; a second time does nothing."""
        with self.lock:
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)


def may_have_holes(files: NtFiles, handle: int, end: int) -> int:
    """Make a file sparse when it gets an end that far behind its own, which is returned."""
    size = files.info(handle).size
    if end > size + _HOLE:
        with contextlib.suppress(OSError):  # FAT: the zeros are written
            files.set_sparse(handle)
    return size


def kind(info: Info) -> int:
    """The type, as of inode(7). A junction is a link, and so is whatever else stands for another place; a file that a service
    brings when it is opened (OneDrive, deduplication) is a file."""
    if info.tag & SURROGATE:
        return stat.S_IFLNK
    if info.tag in _SPECIAL:
        return _SPECIAL[info.tag]
    return stat.S_IFDIR if info.attributes & ATTRIBUTE_FOLDER else stat.S_IFREG


def shown(info: Info, who: Ident, user: tuple[int, int], owners: Remembered) -> Stat:
    """The entry as the guest sees it; `user` is the uid and gid of what nobody has given an owner."""
    form = kind(info)
    mode = form | (0o777 if form == stat.S_IFLNK else _BITS)
    uid, gid = user
    owner = None if owners.empty else owners.of(who)
    if owner is not None:
        uid, gid = owner.uid, owner.gid
        if owner.mode is not None and form != stat.S_IFLNK:
            mode = form | owner.mode
    times = (nanoseconds(info.accessed), nanoseconds(info.written), nanoseconds(info.changed))
    size = 0 if form == stat.S_IFDIR else info.size
    return Stat(mode, size, uid, gid, info.links, info.inode, who.st_dev, (info.allocated + 511) // 512, *times)


def remember(
    found: Ident,
    user: tuple[int, int],
    owners: Remembered,
    *,
    uid: int | None = None,
    gid: int | None = None,
    mode: int | None = None,
) -> None:
    """What the guest wants of owner and mode; all of it is remembered, none is set. Raises OSError when that cannot be."""
    before = (None if owners.empty else owners.of(found)) or Owner(*user, None)
    after = Owner(
        before.uid if uid is None else uid, before.gid if gid is None else gid, before.mode if mode is None else mode & 0o7777
    )
    if after != before:
        owners.remember(found, after)


def begin(found: Ident, folder: Ident, user: tuple[int, int], mode: int, owners: Remembered) -> None:
    """A new entry: the owner that is remembered of its folder, and its mode where that is not what is shown anyhow."""
    above = None if owners.empty else owners.of(folder)
    uid, gid = (above.uid, above.gid) if above is not None else user
    remember(found, user, owners, uid=uid, gid=gid, mode=None if mode & 0o7777 == _BITS else mode)


def nanoseconds(time: int) -> int:
    """Since 1970, of Windows' units of 100 ns since 1601."""
    return (time - _EPOCH) * 100


def units(time: int) -> int:
    """The reverse. 0 and less have a meaning of their own in FILE_BASIC_INFORMATION: 1601 begins a little later."""
    return max(time // 100 + _EPOCH, 1)


def room(free: int, whole: int, unused: int, device: int) -> os.statvfs_result:
    """statvfs of GetDiskFreeSpaceExW: what the user may use, the whole, what is free of it. There is no number of inodes here:
    one for each block."""
    block = 4096
    blocks, left, mine = whole // block, unused // block, free // block
    return os.statvfs_result((block, block, blocks, left, mine, blocks, left, mine, 0, 255, device))
