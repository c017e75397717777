"""Opening and making files of a Windows share."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from launcher.host import ntfiles
from launcher.sftp.entries import may_change, may_make
from launcher.sftp.rules import OPEN
from launcher.sftp.walk import Place, fail
from launcher.sftp.windows_file import File, kind
from launcher.sftp.windows_names import looked_up, made
from launcher.sftp.windows_walk import WindowsWalk

_ACCESS: Final = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
_SYNC: Final = getattr(os, "O_SYNC", 0) | getattr(os, "O_DSYNC", 0)
_TRIES: Final = 3


def open_file(walk: WindowsWalk, place: Place, flags: int) -> tuple[File, bool]:
    """A regular file and whether it is new. ELOOP for a link, EISDIR for a folder, ENXIO for what is neither."""
    for _ in range(_TRIES):
        try:
            return _existing(walk, place, flags), False
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
        name = made(place.name)
        may_make(place, walk.spelling)
        try:
            return _new(walk, place, name, flags), True
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
    raise fail(errno.ESTALE, place.path)


def _existing(walk: WindowsWalk, place: Place, flags: int) -> File:
    writes = flags & _ACCESS != os.O_RDONLY
    with walk.look(place) as entry:
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise fail(errno.EEXIST, place.path)
        _must_be_file(kind(entry.info), place)
        if writes or flags & os.O_TRUNC:
            may_change(place, entry.rule)
        # What a service brings when it is opened is opened as what it stands for: that is not another file.
        options = ntfiles.NO_FOLDER | (0 if entry.info.tag else ntfiles.AS_IT_IS) | _written_through(flags)
        handle, _ = walk.files.open(place.folder, looked_up(place.name), _access(flags), options=options)
        try:
            info = walk.files.info(handle)
            if info.inode != entry.info.inode or walk.files.volume(handle) != walk.files.volume(entry.handle):
                raise fail(errno.ESTALE, place.path)
            if flags & os.O_TRUNC and writes and info.size:
                walk.files.set_size(handle, 0)
        except BaseException:
            walk.files.close(handle)
            raise
    return _file(walk, handle, place, entry.rule, flags)


def _new(walk: WindowsWalk, place: Place, name: bytes, flags: int) -> File:
    options = ntfiles.NO_FOLDER | ntfiles.AS_IT_IS | _written_through(flags)
    handle, _ = walk.files.open(place.folder, name, _access(flags), disposition=ntfiles.CREATE, options=options)
    return _file(walk, handle, place, OPEN, flags)


def _file(walk: WindowsWalk, handle: int, place: Place, rule: int, flags: int) -> File:
    """The handle is the file's from here on."""
    try:
        inode = walk.files.info(handle).inode
        appends = bool(flags & os.O_APPEND)
        return File(walk.files, walk.files.descriptor(handle, appends=appends), place.path, rule, inode, appends=appends)
    except BaseException:
        walk.files.close(handle)
        raise


def _access(flags: int) -> int:
    reads = ntfiles.READ_DATA if flags & _ACCESS != os.O_WRONLY else 0
    if flags & _ACCESS == os.O_RDONLY:
        return reads
    # To empty it takes the right to write anywhere.
    appends = flags & os.O_APPEND and not flags & os.O_TRUNC
    return reads | ntfiles.WRITE_ATTRIBUTES | (ntfiles.APPEND_DATA if appends else ntfiles.WRITE_DATA)


def _written_through(flags: int) -> int:
    return ntfiles.WRITE_THROUGH if flags & _SYNC else 0


def _must_be_file(form: int, place: Place) -> None:
    if form == stat.S_IFLNK:
        raise fail(errno.ELOOP, place.path)
    if form != stat.S_IFREG:
        raise fail(errno.EISDIR if form == stat.S_IFDIR else errno.ENXIO, place.path)
