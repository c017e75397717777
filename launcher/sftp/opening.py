"""Opening and making files of a share."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from launcher.sftp.entries import look, may_change, may_make
from launcher.sftp.remembered import Remembered
from launcher.sftp.rules import OPEN
from launcher.sftp.shown import inherit, kept, remember_mode
from launcher.sftp.spelling import Spelling
from launcher.sftp.walk import Place, fail

_SAFE: Final = (
    getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
)
_PASSED: Final = os.O_ACCMODE | os.O_APPEND | getattr(os, "O_SYNC", 0) | getattr(os, "O_DSYNC", 0)
_TRIES: Final = 3  # a name that comes and goes while we look


class File:
    """A regular file of the tree that is open. `path` is the one that it was opened by, for messages only."""

    __slots__ = ("fd", "path", "rule")

    def __init__(self, fd: int, path: bytes, rule: int) -> None:
        self.fd = fd
        self.path = path
        self.rule = rule

    def close(self) -> None:
        """Close it; a second time does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def open_file(place: Place, flags: int, mode: int, owners: Remembered, spelling: Spelling) -> File:
    """Open a regular file, or make it. ELOOP for a link, EISDIR for a folder, ENXIO for what is neither."""
    for _ in range(_TRIES):
        try:
            return _open_existing(place, flags, spelling)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
        may_make(place, spelling)
        try:
            return _make(place, flags, mode, owners, spelling)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
    raise fail(errno.ESTALE, place.path)


def _open_existing(place: Place, flags: int, spelling: Spelling) -> File:
    found, rule, _ = look(place, spelling)
    if flags & os.O_CREAT and flags & os.O_EXCL:
        raise fail(errno.EEXIST, place.path)
    _must_be_file(found.st_mode, place.path)
    writes = flags & os.O_ACCMODE != os.O_RDONLY
    if writes or flags & os.O_TRUNC:
        may_change(place, rule)
    # Without O_TRUNC: it is emptied only when what was opened is what may be written.
    fd = os.open(place.name, flags & _PASSED | _SAFE, dir_fd=place.folder)
    try:
        opened = os.fstat(fd)
        if opened.st_ino != found.st_ino or opened.st_dev != found.st_dev:
            _must_be_file(opened.st_mode, place.path)
            rule, _ = place.rules.met(place.rule, place.named, opened.st_dev, opened.st_ino)
            if rule != OPEN:
                raise fail(errno.ESTALE, place.path)
        os.set_blocking(fd, True)
        if flags & os.O_TRUNC and writes:
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return File(fd, place.path, rule)


def _make(place: Place, flags: int, mode: int, owners: Remembered, spelling: Spelling) -> File:
    host = kept(mode, stat.S_IFREG)
    fd = os.open(place.name, flags & _PASSED | os.O_CREAT | os.O_EXCL | _SAFE, host, dir_fd=place.folder)
    try:
        made = os.fstat(fd)
        if made.st_mode & 0o777 != host:
            os.fchmod(fd, host)  # our own umask; the guest's has been applied there
        inherit(made, place.folder, owners, fd)
        remember_mode(made, mode, owners, fd)
        spelling.made(place.folder, place.name)
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return File(fd, place.path, OPEN)


def _must_be_file(mode: int, path: bytes) -> None:
    if not stat.S_ISREG(mode):
        if stat.S_ISLNK(mode):
            raise fail(errno.ELOOP, path)
        raise fail(errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO, path)
