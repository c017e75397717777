"""One share on Windows: what `launcher.sftp.tree` is elsewhere, by handles (`launcher.host.ntfiles`).

Names that differ in case alone are one to Windows and two to the guest: an entry is found by its own spelling only, and making
one whose other spelling is there fails with EEXIST. Owners and modes are remembered, none is set.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
import weakref
from pathlib import Path
from typing import Final

from launcher.host import ntfiles
from launcher.host.ntfiles import NtFiles
from launcher.host.ntformat import Info
from launcher.sftp import windows_moving as moving
from launcher.sftp.entries import may_change, may_make, may_move
from launcher.sftp.policy import Policy
from launcher.sftp.remembered import Remembered
from launcher.sftp.stat import NOW, Change, Stat
from launcher.sftp.walk import Place, fail
from launcher.sftp.windows_file import File, begin, kind, may_have_holes, remember, room, shown, units
from launcher.sftp.windows_list import Listed, listed
from launcher.sftp.windows_names import guest_target, link_text, made
from launcher.sftp.windows_open import open_file
from launcher.sftp.windows_walk import Entry, WindowsWalk, plain_path

_LINKS: Final = 40
_MANY: Final = 256  # files that were open


class WindowsTree:
    """As `launcher.sftp.tree.Tree`, for any number of threads."""

    parallel: Final = True

    def __init__(
        self, root: Path, policy: Policy, owners: Remembered, *, user: tuple[int, int] = (0, 0), files: NtFiles | None = None
    ) -> None:
        """`user` is the uid and gid of what nobody has given an owner."""
        self._files = files or NtFiles()
        self._walk = WindowsWalk(root, policy, self._files)
        self._owners = owners
        self._user = user
        self._lock = threading.Lock()
        self._open: dict[int, weakref.WeakSet[File]] = {}  # those that write, by inode

    def replace(self, policy: Policy) -> None:
        self._walk.replace(policy)

    def lstat(self, path: bytes) -> Stat:
        with self._walk.to(path) as place, self._walk.look(place) as entry:
            return self._shown(entry, place)

    def stat(self, path: bytes) -> Stat:
        return self.lstat(self._followed(path))

    def open(self, path: bytes, flags: int, mode: int) -> File:
        """A regular file; what is read and written goes through its descriptor."""
        with self._walk.to(path) as place:
            file, new = open_file(self._walk, place, flags)
            try:
                if new:
                    self._begin(self._files.handle(file.fd), place, mode)
            except BaseException:
                file.close()
                raise
        if flags & (os.O_WRONLY | os.O_RDWR):
            with self._lock:
                self._open.setdefault(file.inode, weakref.WeakSet()).add(file)
                if len(self._open) > _MANY:
                    self._open = {inode: files for inode, files in self._open.items() if files}
        return file

    def fstat(self, file: File) -> Stat:
        return self._of(self._files.info(self._files.handle(file.fd)))

    def change(self, path: bytes, change: Change, *, follow: bool) -> None:
        timed = change.atime_ns is not None or change.mtime_ns is not None
        access = (ntfiles.WRITE_DATA if change.size is not None else 0) | (ntfiles.WRITE_ATTRIBUTES if timed else 0)
        with self._walk.to(self._followed(path) if follow else path) as place:
            with self._walk.look(place) as entry:
                self._may(entry.rule, change, place)
                if change.size is not None and kind(entry.info) != stat.S_IFREG:
                    raise fail(errno.EISDIR if kind(entry.info) == stat.S_IFDIR else errno.EINVAL, path)
                if change.mode is not None and kind(entry.info) == stat.S_IFLNK:
                    raise fail(errno.ENOTSUP, path)
            with self._walk.look(place, access) as again:
                if again.info.inode != entry.info.inode:
                    raise fail(errno.ESTALE, path)
                self._change(again.handle, change)
                if timed:
                    self._stamp(again.info.inode, change)

    def fchange(self, file: File, change: Change) -> None:
        if file.rule and change != Change(uid=change.uid, gid=change.gid):
            raise fail(errno.EACCES, file.path)
        handle = self._files.handle(file.fd)
        if change.size is None or not file.appends:
            self._change(handle, change)
            return
        # One that only appends may not cut: the same file once more.
        again, _ = self._files.open(handle, b"", ntfiles.WRITE_DATA | ntfiles.WRITE_ATTRIBUTES, options=ntfiles.NO_FOLDER)
        try:
            self._change(again, change)
        finally:
            self._files.close(again)

    def listdir(self, path: bytes) -> Listed:
        with self._walk.to(path) as place, self._walk.look(place, ntfiles.READ_DATA) as entry:
            if kind(entry.info) != stat.S_IFDIR:
                raise fail(errno.ENOTDIR, path)
            handle, _ = self._files.open(entry.handle, b"", ntfiles.READ_DATA, options=ntfiles.FOLDER)
        return listed(self._walk, handle, place.rules, entry, lambda found: self._shown(found, None))

    def mkdir(self, path: bytes, mode: int) -> None:
        with self._walk.to(path) as place:
            name = made(place.name)
            may_make(place, self._walk.spelling, folder=True)
            options = ntfiles.FOLDER | ntfiles.AS_IT_IS
            handle, _ = self._files.open(place.folder, name, 0, disposition=ntfiles.CREATE, options=options)
            try:
                self._begin(handle, place, mode)
            finally:
                self._files.close(handle)
            if place.named is not None:
                self._walk.look_again()

    def rmdir(self, path: bytes) -> None:
        with self._walk.to(path) as place:
            self._remove(place, folder=True)

    def unlink(self, path: bytes) -> None:
        with self._walk.to(path) as place:
            self._remove(place, folder=False)

    def rename(self, old: bytes, new: bytes, replace: bool) -> None:
        with self._walk.to(old) as source, self._walk.to(new) as target:
            moved = moving.rename(self._walk, source, target, self._owners, replace=replace)
        if moved:
            self._walk.forget()

    def link(self, old: bytes, new: bytes) -> None:
        with self._walk.to(old) as source, self._walk.to(new) as target:
            moving.link(self._walk, source, target)

    def symlink(self, target: bytes, path: bytes) -> None:
        """Relative ones only: an absolute target is a path of the guest. EPERM for those, and without Windows' leave."""
        if not target or b"\0" in target:
            raise fail(errno.ENOENT if not target else errno.EINVAL, path)
        with self._walk.to(path) as place:
            may_make(place, self._walk.spelling)
            moving.symlink(self._walk, place, target, folder=self._is_folder(path, target))

    def readlink(self, path: bytes) -> bytes:
        with self._walk.to(path) as place, self._walk.look(place) as entry:
            return self._target(entry, place)

    def statvfs(self, path: bytes) -> os.statvfs_result:
        self.lstat(path)
        return room(*self._files.room(self._walk.drive_path), self._walk.device)

    def close(self) -> None:
        self._walk.close()

    def _begin(self, handle: int, place: Place, mode: int) -> None:
        found, above = (self._walk.ident(self._files.info(one)) for one in (handle, place.folder))
        begin(found, above, self._user, mode, self._owners)

    def _of(self, info: Info) -> Stat:
        return shown(info, self._walk.ident(info), self._user, self._owners)

    def _shown(self, entry: Entry, place: Place | None) -> Stat:
        found = self._of(entry.info)
        if stat.S_ISLNK(found.mode):
            found = found._replace(size=len(self._target(entry, place)))
        return found

    def _target(self, entry: Entry, place: Place | None) -> bytes:
        if kind(entry.info) != stat.S_IFLNK:
            raise fail(errno.EINVAL, place.path if place else b"")
        text = link_text(self._files.reparse(entry.handle))
        if isinstance(text, bytes):
            return text
        folder = self._walk.whole_path(entry.handle).rpartition("\\")[0]
        return guest_target(text, plain_path(self._walk.drive_path), folder)

    def _remove(self, place: Place, *, folder: bool) -> None:
        with self._walk.look(place) as entry:
            is_folder = kind(entry.info) == stat.S_IFDIR
            if is_folder != folder:
                raise fail(errno.ENOTDIR if folder else errno.EISDIR, place.path)
            may_move(place, entry.rule, entry.node)
        moving.remove(self._walk, place, entry.info, self._owners)

    def _change(self, handle: int, change: Change) -> None:
        found = self._files.info(handle)
        if change.size is not None:
            may_have_holes(self._files, handle, change.size)
            self._files.set_size(handle, change.size)
        if change.uid is not None or change.gid is not None or change.mode is not None:
            who = self._walk.ident(found)
            remember(who, self._user, self._owners, uid=change.uid, gid=change.gid, mode=change.mode)
        if change.atime_ns is not None or change.mtime_ns is not None:
            self._set_times(handle, change)

    def _set_times(self, handle: int, change: Change) -> None:
        now = time.time_ns()
        accessed, written = (
            0 if asked is None else units(now if asked == NOW else asked) for asked in (change.atime_ns, change.mtime_ns)
        )
        self._files.set_basic(handle, accessed=accessed, written=written)

    def _may(self, rule: int, change: Change, place: Place) -> None:
        if change != Change(uid=change.uid, gid=change.gid):
            may_change(place, rule)

    def _stamp(self, inode: int, change: Change) -> None:
        """By the handles that it is being written by too: else each would set the time of its last write when it is closed."""
        with self._lock:
            files = list(self._open.get(inode, ()))
        for file in files:
            with file.lock, contextlib.suppress(OSError):
                handle = self._files.handle(file.fd)
                if self._files.info(handle).inode == inode:
                    self._set_times(handle, change)

    def _is_folder(self, path: bytes, target: bytes) -> bool:
        try:
            return stat.S_ISDIR(self.stat(path.rpartition(b"/")[0] + b"/" + target).mode)
        except OSError:
            return False

    def _followed(self, path: bytes) -> bytes:
        """As in tree.py: EXDEV for what leads out of the share."""
        todo = [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]
        done: list[bytes] = []
        links = 0
        while todo:
            name = todo.pop()
            if name == b"..":
                if not done:
                    raise fail(errno.EXDEV, path)
                done.pop()
                continue
            here = b"/" + b"/".join([*done, name])
            if not stat.S_ISLNK(self.lstat(here).mode):
                done.append(name)
                continue
            links += 1
            if links > _LINKS:
                raise fail(errno.ELOOP, path)
            target = self.readlink(here)
            if target.startswith(b"/"):
                raise fail(errno.EXDEV, path)
            todo += [part for part in reversed(target.split(b"/")) if part not in (b"", b".")]
        return b"/" + b"/".join(done)
