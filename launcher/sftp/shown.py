"""What an entry looks like to the guest: as it is here, with the owner and mode that the guest gave it."""

from __future__ import annotations

import os
import stat

from launcher.sftp.remembered import At, Owner, Remembered
from launcher.sftp.stat import Stat

_new = tuple.__new__


def shown(st: os.stat_result, owners: Remembered, at: At = None) -> Stat:
    """The entry as the guest sees it; `at` is what `Remembered` asks for. Mode bits that the host has changed are its own."""
    uid, gid, mode = st.st_uid, st.st_gid, st.st_mode
    if not owners.empty:
        owner = owners.of(st, at)
        if owner is not None:
            uid, gid = owner.uid, owner.gid
            if owner.mode is not None and mode & 0o777 == kept(owner.mode, mode):
                mode = stat.S_IFMT(mode) | owner.mode
    return _new(
        Stat,
        (
            mode,
            st.st_size,
            uid,
            gid,
            st.st_nlink,
            st.st_ino,
            st.st_dev,
            st.st_blocks,
            st.st_atime_ns,
            st.st_mtime_ns,
            st.st_ctime_ns,
        ),
    )


def kept(wanted: int, like: int) -> int:
    """The mode bits that the host gets for those that the guest wants: no special ones, and the user can always read and write
    what is theirs. `like` has the type."""
    return wanted & 0o777 | (0o700 if stat.S_ISDIR(like) else 0o600)


def remember_mode(st: os.stat_result, wanted: int, owners: Remembered, at: At) -> None:
    """Remember the bits that the guest wants where they are not those that the host has; `st` is from before the change."""
    owner = None if owners.empty else owners.of(st, at)
    wanted &= 0o7777
    differs = wanted != kept(wanted, st.st_mode)
    if owner is not None:
        owners.remember(st, owner._replace(mode=wanted if differs else None), at)
    elif differs:
        owners.remember(st, Owner(st.st_uid, st.st_gid, wanted), at)


def remember_owner(st: os.stat_result, uid: int | None, gid: int | None, owners: Remembered, at: At) -> None:
    """Remember who the guest wants to own it."""
    before = (None if owners.empty else owners.of(st, at)) or Owner(st.st_uid, st.st_gid, None)
    owners.remember(st, before._replace(uid=before.uid if uid is None else uid, gid=before.gid if gid is None else gid), at)


def inherit(st: os.stat_result, folder: int, owners: Remembered, at: At) -> None:
    """Give a new entry the remembered owner of its folder, a descriptor."""
    if not owners.empty:
        owner = owners.of(os.fstat(folder), folder)
        if owner is not None:
            owners.remember(st, Owner(owner.uid, owner.gid, None), at)
