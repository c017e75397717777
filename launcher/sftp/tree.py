"""One share: everything that its guest may do with files, by descriptors from the root of the share."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from launcher.sftp import moving
from launcher.sftp.changing import change_entry, change_file
from launcher.sftp.entries import look, may_make, may_move
from launcher.sftp.listing import Entries, entries
from launcher.sftp.opening import File, open_file
from launcher.sftp.policy import Policy
from launcher.sftp.remembered import Remembered
from launcher.sftp.shown import inherit, kept, remember_mode, shown
from launcher.sftp.spelling import Spelling
from launcher.sftp.stat import Change, Stat
from launcher.sftp.walk import Walk, fail

__all__ = ["Entries", "File", "Tree"]

_LINKS: Final = 40  # as Linux does, path_resolution(7)


class Tree:
    """Paths are absolute bytes within the share. Every method raises OSError with the errno that the guest is told; none
    follows a link except `stat` and `change`, and those not out of the share. For any number of threads."""

    parallel: Final = True

    def __init__(self, root: Path, policy: Policy, owners: Remembered) -> None:
        self._walk = Walk(os.fsencode(root), policy)
        self._owners = owners
        self._spelling = Spelling(policy.names)

    def replace(self, policy: Policy) -> None:
        """Other rules from the next call on. Files that are open stay so."""
        self._walk.replace(policy)

    def lstat(self, path: bytes) -> Stat:
        place = self._walk.to(path)
        try:
            return shown(look(place, self._spelling)[0], self._owners, (place.folder, place.name))
        finally:
            self._walk.leave(place)

    def stat(self, path: bytes) -> Stat:
        return self.lstat(self._followed(path))

    def open(self, path: bytes, flags: int, mode: int) -> File:
        """A regular file; `mode` is given as it is, no umask is applied. It never waits."""
        place = self._walk.to(path)
        try:
            return open_file(place, flags, mode, self._owners, self._spelling)
        finally:
            self._walk.leave(place)

    def fstat(self, file: File) -> Stat:
        return shown(os.fstat(file.fd), self._owners, file.fd)

    def change(self, path: bytes, change: Change, *, follow: bool) -> None:
        place = self._walk.to(self._followed(path) if follow else path)
        try:
            change_entry(place, change, self._owners, self._spelling)
        finally:
            self._walk.leave(place)

    def fchange(self, file: File, change: Change) -> None:
        change_file(file, change, self._owners)

    def listdir(self, path: bytes) -> Entries:
        """What is in a folder, without `.`, `..` and what is hidden. Holds descriptors until it has ended or is closed."""
        place = self._walk.to(path)
        try:
            return entries(place, self._owners, self._spelling)
        finally:
            self._walk.leave(place)

    def mkdir(self, path: bytes, mode: int) -> None:
        place = self._walk.to(path)
        try:
            may_make(place, self._spelling, folder=True)
            os.mkdir(place.name, kept(mode, stat.S_IFDIR), dir_fd=place.folder)
            made = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
            inherit(made, place.folder, self._owners, (place.folder, place.name))
            # Also the mode that our own umask has taken from it.
            wanted = stat.S_IMODE(mode)
            if made.st_mode & 0o777 != kept(mode, stat.S_IFDIR):
                change_entry(place, Change(mode=wanted), self._owners, self._spelling)
            else:
                remember_mode(made, wanted, self._owners, (place.folder, place.name))
            self._spelling.made(place.folder, place.name)
            if place.named is not None:
                self._walk.look_again()
        finally:
            self._walk.leave(place)

    def rmdir(self, path: bytes) -> None:
        place = self._walk.to(path)
        try:
            found, rule, node = look(place, self._spelling)
            if not stat.S_ISDIR(found.st_mode):
                raise fail(errno.ENOTDIR, path)
            may_move(place, rule, node)
            os.rmdir(place.name, dir_fd=place.folder)
            self._owners.forget(found)
            self._spelling.gone(place.folder, place.name)
        finally:
            self._walk.leave(place)

    def unlink(self, path: bytes) -> None:
        place = self._walk.to(path)
        try:
            found, rule, node = look(place, self._spelling)
            if stat.S_ISDIR(found.st_mode):
                raise fail(errno.EISDIR, path)
            may_move(place, rule, node)
            os.unlink(place.name, dir_fd=place.folder)
            if found.st_nlink == 1:
                self._owners.forget(found)
            self._spelling.gone(place.folder, place.name)
        finally:
            self._walk.leave(place)

    def rename(self, old: bytes, new: bytes, replace: bool) -> None:
        """rename(2); without `replace` EEXIST when the new name is taken."""
        source = self._walk.to(old)
        try:
            target = self._walk.to(new)
            try:
                if moving.rename(source, target, self._owners, self._spelling, replace=replace):
                    self._walk.forget()
            finally:
                self._walk.leave(target)
        finally:
            self._walk.leave(source)

    def link(self, old: bytes, new: bytes) -> None:
        """link(2), of regular files."""
        source = self._walk.to(old)
        try:
            target = self._walk.to(new)
            try:
                moving.link(source, target, self._spelling)
            finally:
                self._walk.leave(target)
        finally:
            self._walk.leave(source)

    def symlink(self, target: bytes, path: bytes) -> None:
        """A link with any text."""
        if not target or b"\0" in target:
            raise fail(errno.ENOENT if not target else errno.EINVAL, path)
        place = self._walk.to(path)
        try:
            may_make(place, self._spelling)
            os.symlink(target, place.name, dir_fd=place.folder)
            if not self._owners.empty:
                made = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
                inherit(made, place.folder, self._owners, (place.folder, place.name))
            self._spelling.made(place.folder, place.name)
        finally:
            self._walk.leave(place)

    def readlink(self, path: bytes) -> bytes:
        place = self._walk.to(path)
        try:
            look(place, self._spelling)
            return os.readlink(place.name, dir_fd=place.folder)
        finally:
            self._walk.leave(place)

    def statvfs(self, path: bytes) -> os.statvfs_result:
        """Of the file system that the folder of the path is on, or the path itself when it is a folder."""
        place = self._walk.to(path)
        try:
            found, _, _ = look(place, self._spelling)
            if not stat.S_ISDIR(found.st_mode):
                return os.statvfs(place.folder)
            inner = self._walk.to(path.rstrip(b"/") + b"/x")
            try:
                return os.statvfs(inner.folder)
            finally:
                self._walk.leave(inner)
        finally:
            self._walk.leave(place)

    def close(self) -> None:
        self._walk.close()

    def _followed(self, path: bytes) -> bytes:
        """The path of what the links of a path lead to. EXDEV when that is not in the share, as no absolute one is."""
        try:
            if not stat.S_ISLNK(self.lstat(path).mode):
                return path
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):  # there may be links on the way
                raise
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
            try:
                target = self.readlink(here)
            except OSError as error:  # EINVAL: no longer a link
                raise fail(errno.ESTALE if error.errno == errno.EINVAL else error.errno or errno.EIO, path) from error
            if target.startswith(b"/"):
                raise fail(errno.EXDEV, path)
            todo += [part for part in reversed(target.split(b"/")) if part not in (b"", b".")]
        return b"/" + b"/".join(done)
