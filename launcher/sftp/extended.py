"""EXTENDED requests: OpenSSH's (its PROTOCOL, section 4) and ours (provisioning/shares.md), a function for each."""

from __future__ import annotations

import errno
import os
from struct import Struct
from typing import Final

from launcher.sftp.handles import OpenFile, OpenFolder
from launcher.sftp.packets import MOST_DATA, string, u32
from launcher.sftp.positions import read_at
from launcher.sftp.requests import APPEND, TRUNCATE, WRITE, open_file, renamed
from launcher.sftp.room import fallocate as _fallocate
from launcher.sftp.serving import REPLY, Answer, Serving, steady
from launcher.sftp.stat import Change

_STATVFS: Final = Struct(">11Q")
_MASK64: Final = (1 << 64) - 1
_READ_ONLY: Final = 1  # of f_flag; the values of OpenSSH
_NO_SETUID: Final = 2
_NOTHING: Final = u32(0)
# Of one answer to list@wherry: a name of 255 bytes and its ATTRS still fit behind it.
_MOST_LISTED: Final = MOST_DATA - 1_024


def posix_rename(serving: Serving, old: bytes, new: bytes) -> Answer:
    return renamed(serving, old, new, replace=True)


def hardlink(serving: Serving, old: bytes, new: bytes) -> Answer:
    serving.tree.link(old, new)
    serving.made(old)
    serving.made(new)
    return serving.done()


def fsync(serving: Serving, key: bytes) -> Answer:
    opened = serving.handles.file(key)
    serving.tell()
    os.fsync(opened.file.fd)
    return serving.done()


def lsetstat(serving: Serving, path: bytes, change: Change) -> Answer:
    serving.tree.change(path, change, follow=False)
    serving.made(path)
    return serving.done()


def statvfs(serving: Serving, path: bytes) -> Answer:
    return REPLY, _statvfs(serving.tree.statvfs(path))


def fstatvfs(serving: Serving, key: bytes) -> Answer:
    """Of the place where the file was opened, asked of the file itself, which has perhaps no name any more."""
    opened = serving.handles.file(key)
    of_file = getattr(os, "fstatvfs", None)
    return REPLY, _statvfs(of_file(opened.file.fd) if of_file else serving.tree.statvfs(opened.path or b"/"))


def _statvfs(found: os.statvfs_result) -> bytes:
    flags = (_READ_ONLY if found.f_flag & 1 else 0) | (_NO_SETUID if found.f_flag & 2 else 0)
    return _STATVFS.pack(
        found.f_bsize, found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree,
        found.f_favail, getattr(found, "f_fsid", 0) & _MASK64, flags, found.f_namemax,
    )  # fmt: skip


def open_whole(serving: Serving, path: bytes, pflags: int, change: Change, most: int) -> Answer:
    """As OPEN, with what nearly always is asked next."""
    flags = serving.flags_of(path)
    try:
        opened = open_file(serving, path, pflags, change)
    except FileNotFoundError as error:
        return serving.failed(error, flags)
    try:
        shown, whole = _shown(serving, opened, flags, 0 if pflags & (WRITE | APPEND | TRUNCATE) else min(most, MOST_DATA))
    except BaseException:
        opened.close()
        raise
    handle = serving.handles.add(opened)
    return REPLY, string(handle) + shown + (b"\0" + _NOTHING if whole is None else b"\1" + string(whole))


def _shown(serving: Serving, opened: OpenFile, flags: int, most: int) -> tuple[bytes, bytes | None]:
    """Its ATTRS, and all that is in it when that is at most `most` bytes and nobody wrote to it while it was read."""
    stat = serving.tree.fstat(opened.file)
    whole = None
    if opened.readable and not opened.writable and stat.size <= most:
        data: bytes = read_at(opened.file.fd, stat.size + 1, 0)
        after = serving.tree.fstat(opened.file)
        whole = data if len(data) == stat.size and _same(after, stat) else None
        stat = after
    return serving.attrs(stat, steady(stat, flags)), whole


def _same(after: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """But for the time of access, which is the last but two of Stat and moves with the reading."""
    return after == before or (after[:-3] == before[:-3] and after[-2:] == before[-2:])


def list_(serving: Serving, path: bytes, key: bytes, most: int) -> Answer:
    """Some of a folder, from its start, or from where the answer before ended."""
    if key:
        return _listed(serving, serving.handles.folder(key), key, most)
    serving.handles.check()
    flags = serving.flags_of(path)
    inside = serving.flags_in(path)
    try:
        return _listed(serving, OpenFolder(serving.tree.listdir(path), path, inside), b"", most)
    except FileNotFoundError as error:
        return serving.failed(error, flags)


def _listed(serving: Serving, folder: OpenFolder, key: bytes, most: int) -> Answer:
    """The next page; the folder has a handle afterwards when there is more of it, else it is closed."""
    try:
        count, entries, more = _page(serving, folder, min(most, _MOST_LISTED))
        # As the handle of what was just opened, when there is more of it.
        if more and not key:
            key = serving.handles.add(folder)
    except BaseException:
        (serving.handles.drop(key) if key else folder).close()
        raise
    if not more:
        (serving.handles.drop(key) if key else folder).close()
        key = b""
    return REPLY, string(key) + u32(count) + entries


def _page(serving: Serving, folder: OpenFolder, most: int) -> tuple[int, bytes, bool]:
    """How many, their names and ATTRS, and whether there may be more. At least one, however little is asked for."""
    entries: list[bytes] = []
    size = 0
    flags = folder.flags
    for name, stat in folder.entries:
        entry = string(name) + serving.attrs(stat, steady(stat, flags))
        entries.append(entry)
        size += len(entry)
        if size >= most:
            return len(entries), b"".join(entries), True
    return len(entries), b"".join(entries), False


def fallocate(serving: Serving, key: bytes, mode: int, offset: int, length: int) -> Answer:
    opened = serving.handles.file(key)
    if not opened.writable:
        raise OSError(errno.EBADF, "not opened for writing")
    _fallocate(opened.file.fd, mode, offset, length)
    serving.changed(opened)
    return serving.done()
