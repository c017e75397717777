"""Entries that get another name, or one more."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from launcher.host.files import files
from launcher.sftp.entries import look, may_make, may_move
from launcher.sftp.remembered import Remembered
from launcher.sftp.spelling import Spelling
from launcher.sftp.walk import Place, fail

_TRIES: Final = 3  # names that the host makes while we look


def rename(source: Place, target: Place, owners: Remembered, spelling: Spelling, *, replace: bool) -> bool:
    """Rename an entry; whether it is a folder. Raises OSError for what may not go, come or be replaced."""
    found, rule, node = look(source, spelling)
    may_move(source, rule, node)
    for _ in range(_TRIES):
        try:
            there, there_rule, there_node = look(target, spelling)
        except FileNotFoundError:
            try:
                _to_free_name(source, target, found, spelling, replace=replace)
            except FileExistsError:
                if not replace or spelling.clash(target.folder, target.name):
                    raise
                continue
            break
        may_move(target, there_rule, there_node)
        if not replace:
            raise fail(errno.EEXIST, target.path)
        os.rename(source.name, target.name, src_dir_fd=source.folder, dst_dir_fd=target.folder)
        _replaced(source, there, found, owners, spelling)
        break
    else:
        raise fail(errno.ESTALE, target.path)
    spelling.made(target.folder, target.name)
    return stat.S_ISDIR(found.st_mode)


def _replaced(source: Place, there: os.stat_result, found: os.stat_result, owners: Remembered, spelling: Spelling) -> None:
    if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino):
        return  # two names of one file: rename(2) leaves both
    spelling.gone(source.folder, source.name)
    if there.st_nlink == 1 or stat.S_ISDIR(there.st_mode):
        owners.forget(there)


def _to_free_name(source: Place, target: Place, found: os.stat_result, spelling: Spelling, *, replace: bool) -> None:
    """To a name that was not there: it is never taken from an entry that comes in this moment, whose rule nobody has seen."""
    own = not target.rules.exact and _same_folder(source, target) and spelling.twin(target.folder, target.name) == source.name
    if own:  # only another spelling of itself
        os.rename(source.name, target.name, src_dir_fd=source.folder, dst_dir_fd=target.folder)
    else:
        may_make(target, spelling)
        try:
            files().rename_new(source.folder, source.name, target.folder, target.name)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EOPNOTSUPP):
                raise
            _without_flag(source, target, found, replace=replace)
    spelling.gone(source.folder, source.name)


def _without_flag(source: Place, target: Place, found: os.stat_result, *, replace: bool) -> None:
    """The same on file systems that know no such rename: a folder replaces nothing but an empty one, a file is linked first."""
    if not stat.S_ISDIR(found.st_mode):
        try:
            _link(source, target)
        except FileExistsError:
            raise
        except OSError:
            if not replace:
                raise
        else:
            os.unlink(source.name, dir_fd=source.folder)
            return
    os.rename(source.name, target.name, src_dir_fd=source.folder, dst_dir_fd=target.folder)


def link(source: Place, target: Place, spelling: Spelling) -> None:
    """Give a regular file one more name. What may not be written cannot get a name by which it could."""
    found, rule, node = look(source, spelling)
    may_move(source, rule, node)
    if not stat.S_ISREG(found.st_mode):
        raise fail(errno.EPERM, source.path)
    try:
        look(target, spelling)
    except FileNotFoundError:
        may_make(target, spelling)
    else:
        raise fail(errno.EEXIST, target.path)
    _link(source, target)
    made = os.stat(target.name, dir_fd=target.folder, follow_symlinks=False)
    if (made.st_dev, made.st_ino) != (found.st_dev, found.st_ino):
        os.unlink(target.name, dir_fd=target.folder)  # another file had taken the name, and nobody has judged it
        raise fail(errno.ESTALE, source.path)
    spelling.made(target.folder, target.name)


def _link(source: Place, target: Place) -> None:
    os.link(source.name, target.name, src_dir_fd=source.folder, dst_dir_fd=target.folder, follow_symlinks=False)


def _same_folder(one: Place, other: Place) -> bool:
    return os.path.samestat(os.fstat(one.folder), os.fstat(other.folder))
