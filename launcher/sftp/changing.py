"""Size, mode, owner and times of entries."""

from __future__ import annotations

import errno
import os
import stat
import time

from launcher.host.files import files
from launcher.sftp.entries import look
from launcher.sftp.opening import File, open_file
from launcher.sftp.policy import refusal
from launcher.sftp.remembered import Remembered
from launcher.sftp.rules import GUARDED, HIDDEN, OPEN
from launcher.sftp.shown import kept, remember_mode, remember_owner
from launcher.sftp.spelling import Spelling
from launcher.sftp.stat import NOW, Change
from launcher.sftp.walk import Place, fail


def change_entry(place: Place, change: Change, owners: Remembered, spelling: Spelling) -> None:
    """Change what is at the place, a link itself. Size first, as it moves the times."""
    found, rule, _ = look(place, spelling)
    _may(rule, change, place.path)
    if change.size is not None:
        opened = open_file(place, os.O_WRONLY, 0, owners, spelling)
        try:
            os.ftruncate(opened.fd, change.size)
        finally:
            opened.close()
    if change.uid is not None or change.gid is not None:
        remember_owner(found, change.uid, change.gid, owners, (place.folder, place.name))
    if change.mode is not None:
        if stat.S_ISLNK(found.st_mode):
            raise fail(errno.EOPNOTSUPP, place.path)
        host = kept(change.mode, found.st_mode)
        if found.st_mode & 0o7777 != host:
            files().change_mode(place.folder, place.name, host, (found.st_dev, found.st_ino))
        remember_mode(found, change.mode, owners, (place.folder, place.name))
    if change.atime_ns is not None or change.mtime_ns is not None:
        os.utime(place.name, ns=_times(change, found), dir_fd=place.folder, follow_symlinks=False)


def change_file(file: File, change: Change, owners: Remembered) -> None:
    """The same for an open file."""
    found = os.fstat(file.fd)
    _may(file.rule, change, file.path)
    if change.size is not None:
        os.ftruncate(file.fd, change.size)
    if change.uid is not None or change.gid is not None:
        remember_owner(found, change.uid, change.gid, owners, file.fd)
    if change.mode is not None:
        host = kept(change.mode, found.st_mode)
        if found.st_mode & 0o7777 != host:
            os.fchmod(file.fd, host)
        remember_mode(found, change.mode, owners, file.fd)
    if change.atime_ns is not None or change.mtime_ns is not None:
        os.utime(file.fd, ns=_times(change, found))


def _may(rule: int, change: Change, path: bytes) -> None:
    """Owners are remembered, not set: they may be changed of what is guarded."""
    if rule == OPEN or (rule == GUARDED and change == Change(uid=change.uid, gid=change.gid)):
        return
    raise fail(errno.EACCES if rule == HIDDEN else refusal(rule), path)


def _times(change: Change, found: os.stat_result) -> tuple[int, int]:
    now = time.time_ns() if NOW in (change.atime_ns, change.mtime_ns) else 0
    pairs = ((change.atime_ns, found.st_atime_ns), (change.mtime_ns, found.st_mtime_ns))
    first, second = (now if asked == NOW else before if asked is None else asked for asked, before in pairs)
    return first, second
