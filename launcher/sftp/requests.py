"""The requests of version 3 (draft-ietf-secsh-filexfer-02, 6), a function for each. What they raise becomes a STATUS."""

from __future__ import annotations

import errno
import os
import stat as modes
import time
from typing import Final

from launcher.sftp.handles import OpenFile, OpenFolder
from launcher.sftp.packets import MOST_DATA, MOST_PATH, absolute, string, u32
from launcher.sftp.positions import read_at, write_all
from launcher.sftp.serving import ATTRS, DATA, HANDLE, NAME, Answer, Serving, regular, steady
from launcher.sftp.stat import Change, Stat

READ: Final = 0x1
WRITE: Final = 0x2
APPEND: Final = 0x4
CREATE: Final = 0x8
TRUNCATE: Final = 0x10
EXCLUSIVE: Final = 0x20
SYNC: Final = 0x20000000

_MOST_OFFSET: Final = (1 << 63) - 1
# Of one READDIR: what an answer of about 64 KB holds.
_MOST_NAMES: Final = 256


def open_flags(pflags: int) -> int:
    """SFTP's flags as this system's. Raises OSError(EINVAL) for a file that is neither read nor written."""
    if pflags & (READ | WRITE) == READ | WRITE:
        flags = os.O_RDWR
    elif pflags & (WRITE | APPEND):
        flags = os.O_WRONLY
    elif pflags & READ:
        flags = os.O_RDONLY
    else:
        raise OSError(errno.EINVAL, "opened for nothing")
    if pflags & READ and pflags & APPEND:
        flags = os.O_RDWR
    flags |= os.O_APPEND if pflags & APPEND else 0
    flags |= os.O_CREAT if pflags & CREATE else 0
    flags |= os.O_TRUNC if pflags & TRUNCATE else 0
    flags |= os.O_EXCL if pflags & EXCLUSIVE else 0
    return flags | (getattr(os, "O_SYNC", 0) if pflags & SYNC else 0)


def open_file(serving: Serving, path: bytes, pflags: int, change: Change) -> OpenFile:
    """A regular file; it is the caller's to keep or to close. Raises OSError."""
    flags = open_flags(pflags)
    serving.handles.check()
    mode = 0o666 if change.mode is None else change.mode
    file = serving.tree.open(path, flags, mode)
    try:
        if not regular(file.fd):
            raise OSError(errno.EACCES, "not a regular file")
        writes = flags & (os.O_WRONLY | os.O_RDWR) != 0
        opened = OpenFile(file, path, readable=not flags & os.O_WRONLY, writable=writes, appends=bool(pflags & APPEND))
        if pflags & (CREATE | TRUNCATE):
            serving.changed(opened)
        return opened
    except BaseException:
        file.close()
        raise


def open_(serving: Serving, path: bytes, pflags: int, change: Change) -> Answer:
    flags = serving.flags_of(path)
    try:
        opened = open_file(serving, path, pflags, change)
    except FileNotFoundError as error:
        return serving.failed(error, flags)
    return HANDLE, string(serving.handles.add(opened))


def close(serving: Serving, key: bytes) -> Answer:
    serving.tell()
    serving.handles.drop(key).close()
    return serving.done()


def read(serving: Serving, key: bytes, offset: int, size: int) -> Answer:
    opened = serving.handles.file(key)
    if not opened.readable:
        raise OSError(errno.EBADF, "not opened for reading")
    if offset > _MOST_OFFSET:
        raise OSError(errno.EINVAL, "no file is so large")
    data: bytes = read_at(opened.file.fd, min(size, MOST_DATA), offset)
    if not data and size:
        return serving.end()
    return DATA, u32(len(data)), data


def write(serving: Serving, key: bytes, offset: int, data: memoryview) -> Answer:
    """All of it, or an error: some of it may have been written then, as with write(2)."""
    opened = serving.handles.file(key)
    if not opened.writable:
        raise OSError(errno.EBADF, "not opened for writing")
    if offset > _MOST_OFFSET - len(data):
        raise OSError(errno.EFBIG, "no file is so large")
    try:
        if before_write := getattr(opened.file, "before_write", None):  # where a hole has to be asked for: Windows
            before_write(offset)
        write_all(opened.file.fd, data, offset, appends=opened.appends)
    finally:
        serving.wrote(opened)
    return serving.done()


def lstat(serving: Serving, path: bytes) -> Answer:
    flags = serving.flags_of(path)
    try:
        stat = serving.tree.lstat(path)
    except FileNotFoundError as error:
        return serving.failed(error, flags)
    if flags and modes.S_ISDIR(stat.mode):
        return ATTRS, _folder(serving, path, stat)
    return ATTRS, serving.attrs(stat, steady(stat, flags))


def _folder(serving: Serving, path: bytes, stat: Stat) -> bytes:
    """Its times change with what is in it: they are watched when it is watched itself, and looked at again then."""
    flags = serving.flags_in(path)
    return serving.attrs(serving.tree.lstat(path) if flags else stat, flags)


def stat_(serving: Serving, path: bytes) -> Answer:
    """Where a link leads is not in the folder that is asked about: only what is none is watched."""
    flags = serving.flags_of(path)
    try:
        stat = serving.tree.lstat(path)
        if modes.S_ISLNK(stat.mode):
            stat, flags = serving.tree.stat(path), 0
    except FileNotFoundError as error:
        return serving.failed(error, 0)
    return ATTRS, serving.attrs(stat, steady(stat, flags))


def fstat(serving: Serving, key: bytes) -> Answer:
    """Never watched: the file may have another name by now."""
    return ATTRS, serving.attrs(serving.tree.fstat(serving.handles.file(key).file))


def setstat(serving: Serving, path: bytes, change: Change) -> Answer:
    serving.tree.change(path, change, follow=True)
    serving.made(path)
    return serving.done()


def fsetstat(serving: Serving, key: bytes, change: Change) -> Answer:
    opened = serving.handles.file(key)
    if change.size is not None and not opened.writable:
        raise OSError(errno.EINVAL, "not opened for writing")  # as ftruncate(2)
    serving.tree.fchange(opened.file, change)
    serving.changed(opened)
    return serving.done()


def opendir(serving: Serving, path: bytes) -> Answer:
    serving.handles.check()
    flags = serving.flags_in(path)
    # A tree that lists with a generator would say so at the first name only.
    if not modes.S_ISDIR(serving.tree.lstat(path).mode):
        raise OSError(errno.ENOTDIR, "not a folder")
    return HANDLE, string(serving.handles.add(OpenFolder(serving.tree.listdir(path), path, flags)))


def readdir(serving: Serving, key: bytes) -> Answer:
    folder = serving.handles.folder(key)
    entries: list[bytes] = []
    for name, stat in folder.entries:
        entries.append(string(name) + string(_line(name, stat)) + serving.attrs(stat, steady(stat, folder.flags)))
        if len(entries) >= _MOST_NAMES:
            break
    if not entries:
        return serving.end()
    return NAME, u32(len(entries)) + b"".join(entries)


def _line(name: bytes, stat: Stat) -> bytes:
    """As of `ls -l` (7 of the draft), for people."""
    when = time.strftime("%b %d %H:%M" if abs(time.time() - stat.mtime_ns / 1e9) < 1.5e7 else "%b %d  %Y", _when(stat.mtime_ns))
    return f"{modes.filemode(stat.mode)} {stat.nlink:3} {stat.uid:<8} {stat.gid:<8} {stat.size:8} {when} ".encode() + name


def _when(nanoseconds: int) -> time.struct_time:
    try:
        return time.localtime(nanoseconds // 1_000_000_000)
    except (OverflowError, OSError, ValueError):
        return time.localtime(0)


def remove(serving: Serving, path: bytes) -> Answer:
    serving.tree.unlink(path)
    serving.gone(path)
    return serving.done()


def mkdir(serving: Serving, path: bytes, change: Change) -> Answer:
    serving.tree.mkdir(path, 0o777 if change.mode is None else change.mode)
    serving.made(path)
    return serving.done()


def rmdir(serving: Serving, path: bytes) -> Answer:
    serving.tree.rmdir(path)
    serving.gone(path)
    return serving.done()


def realpath(_serving: Serving, text: bytes) -> Answer:
    """The text only; nothing is looked at."""
    path = absolute(text)
    nothing = u32(0)
    return NAME, u32(1) + string(path) + string(path) + nothing


def rename(serving: Serving, old: bytes, new: bytes) -> Answer:
    return renamed(serving, old, new, replace=False)


def renamed(serving: Serving, old: bytes, new: bytes, *, replace: bool) -> Answer:
    serving.tree.rename(old, new, replace)
    serving.moved(old, new)
    return serving.done()


def readlink(serving: Serving, path: bytes) -> Answer:
    flags = serving.flags_of(path)
    try:
        target = serving.tree.readlink(path)
    except FileNotFoundError as error:
        return serving.failed(error, flags)
    return NAME, u32(1) + string(target) + string(target) + u32(0)


def symlink(serving: Serving, target: bytes, path: bytes) -> Answer:
    if not target or b"\0" in target:
        raise OSError(errno.ENOENT if not target else errno.EINVAL, "no such target")  # as symlink(2)
    if len(target) >= MOST_PATH:
        raise OSError(errno.ENAMETOOLONG, "the target is too long")
    serving.tree.symlink(target, path)
    serving.made(path)
    return serving.done()
