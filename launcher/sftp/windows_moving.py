"""Entries of a Windows share that go, get another name, or one more."""

from __future__ import annotations

import errno
import stat
from typing import Final

from launcher.host import ntfiles
from launcher.host.ntformat import Info
from launcher.sftp.entries import may_make, may_move
from launcher.sftp.remembered import Remembered
from launcher.sftp.walk import Place, fail
from launcher.sftp.windows_file import kind
from launcher.sftp.windows_names import host_target, made
from launcher.sftp.windows_walk import Entry, WindowsWalk

_TRIES: Final = 3  # names that the host makes while we look


def remove(walk: WindowsWalk, place: Place, judged: Info, owners: Remembered) -> None:
    """Take the entry away that was judged, and no other."""
    with walk.look(place, ntfiles.DELETE | ntfiles.WRITE_ATTRIBUTES) as entry:
        if entry.info.inode != judged.inode:
            raise fail(errno.ESTALE, place.path)
        walk.files.delete(entry.handle)
    if judged.links <= 1:
        owners.forget(walk.ident(judged))


def rename(walk: WindowsWalk, source: Place, target: Place, owners: Remembered, *, replace: bool) -> bool:
    """Rename an entry; whether it is a folder. Raises OSError for what may not go, come or be replaced."""
    name = made(target.name)
    with walk.look(source, ntfiles.DELETE) as entry:
        may_move(source, entry.rule, entry.node)
        for _ in range(_TRIES):
            there = _there(walk, target)
            try:
                _to(walk, source, target, name, entry, there, owners, replace=replace)
            except FileExistsError:
                if not replace or there is not None or _clashes(walk, source, target, entry):
                    raise
                continue
            break
        else:
            raise fail(errno.ESTALE, target.path)
    return kind(entry.info) == stat.S_IFDIR


def _to(
    walk: WindowsWalk, source: Place, target: Place, name: bytes, entry: Entry, there: Entry | None, owners: Remembered,
    *, replace: bool,
) -> None:  # fmt: skip
    if there is None:
        if not _is_itself(walk, source, target, entry):
            may_make(target, walk.spelling)
        # Nothing that comes in this moment is replaced: nobody has judged it.
        walk.files.rename(entry.handle, target.folder, name, replace=False)
        return
    may_move(target, there.rule, there.node)
    if not replace:
        raise fail(errno.EEXIST, target.path)
    if there.info.inode == entry.info.inode:
        return  # two names of one file: rename(2) leaves both
    _must_fit(entry, there, target)
    if kind(there.info) == stat.S_IFDIR:
        remove(walk, target, there.info, owners)  # an empty one gives way; Windows replaces files only
        walk.files.rename(entry.handle, target.folder, name, replace=False)
        return
    walk.files.rename(entry.handle, target.folder, name, replace=True)
    if there.info.links <= 1:
        owners.forget(walk.ident(there.info))


def _there(walk: WindowsWalk, target: Place) -> Entry | None:
    try:
        with walk.look(target) as there:
            return there  # closed: an open one would stand in the way on older file systems
    except FileNotFoundError:
        return None


def _must_fit(entry: Entry, there: Entry, target: Place) -> None:
    moves_folder, meets_folder = (kind(one.info) == stat.S_IFDIR for one in (entry, there))
    if moves_folder != meets_folder:
        raise fail(errno.ENOTDIR if moves_folder else errno.EISDIR, target.path)


def _clashes(walk: WindowsWalk, source: Place, target: Place, entry: Entry) -> bool:
    return not _is_itself(walk, source, target, entry) and walk.spelling.clash(target.folder, target.name)


def _is_itself(walk: WindowsWalk, source: Place, target: Place, entry: Entry) -> bool:
    """Whether the new name is another spelling of the old one."""
    if source.name == target.name or not walk.spelling.clash(target.folder, target.name):
        return False
    if walk.files.info(source.folder).inode != walk.files.info(target.folder).inode:
        return False
    handle, _ = walk.files.open(target.folder, made(target.name), 0)
    try:
        return walk.files.final_path(handle) == walk.files.final_path(entry.handle)
    finally:
        walk.files.close(handle)


def link(walk: WindowsWalk, source: Place, target: Place) -> None:
    """Give a regular file one more name."""
    name = made(target.name)
    with walk.look(source, ntfiles.WRITE_ATTRIBUTES) as entry:
        may_move(source, entry.rule, entry.node)
        if kind(entry.info) != stat.S_IFREG:
            raise fail(errno.EPERM, source.path)
        if _there(walk, target) is not None:
            raise fail(errno.EEXIST, target.path)
        may_make(target, walk.spelling)
        walk.files.link(entry.handle, target.folder, name)


def symlink(walk: WindowsWalk, place: Place, target: bytes, *, folder: bool) -> None:
    """By a whole path, as Windows has no other way: the folder is held so that it, and those above it, stay where they are."""
    text = host_target(target)
    name = made(place.name)
    share = ntfiles.SHARE_NO_DELETE
    held, _ = walk.files.open(place.folder, b"", ntfiles.READ_DATA, share=share, options=ntfiles.FOLDER)
    try:
        path = f"{walk.files.final_path(held, drive=True)}\\{name.decode('utf-16-le', 'surrogatepass')}"
        walk.files.symlink(path, text, folder=folder)
    finally:
        walk.files.close(held)
    with walk.look(place) as made_link:  # what cannot make links may say that it did
        if kind(made_link.info) != stat.S_IFLNK:
            raise fail(errno.ENOTSUP, place.path)
