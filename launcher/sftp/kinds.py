"""What is known of each request before it is carried out: its fields, and what may go on at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from launcher.sftp import attrs, extended, requests
from launcher.sftp.packets import Reader
from launcher.sftp.serving import Answer


class Kind(NamedTuple):
    """One request.

    `loose`: nobody can tell whether it was carried out before or after those that follow, but for those with the same handle.
    `changes`: something is otherwise after it.
    `shows`: its answer tells what is true until an event says otherwise.
    `slow`: nearly always; the thread that reads does not begin with it.
    `handle`: which field is one; None for none.
    `variant`: what kind it is by its fields, where that is not always the same.
    """

    run: Callable[..., Answer]
    fields: tuple[Callable[[Reader], Any], ...]
    handle: int | None = None
    loose: bool = False
    changes: bool = False
    shows: bool = False
    slow: bool = False
    variant: Callable[[list[Any]], Kind] | None = None


_BYTE: Final = Reader.byte
_U32: Final = Reader.u32
_U64: Final = Reader.u64
_STRING: Final = Reader.string
_VIEW: Final = Reader.view
_HANDLE: Final = Reader.handle
_PATH: Final = Reader.path
_CHANGE: Final = attrs.change


def _list_path(reader: Reader) -> bytes:
    """list@wherry's, which is empty when it goes on with a handle."""
    at = reader.at
    if reader.u32() == 0:
        return b""
    reader.at = at
    return reader.path()


def _opening(fields: list[Any]) -> Kind:
    """Of OPEN and of open@wherry: most only look."""
    changes = fields[1] & (requests.CREATE | requests.TRUNCATE) != 0
    return Kind(requests.open_, (), changes=changes, shows=True)


def _listing(fields: list[Any]) -> Kind:
    return Kind(extended.list_, (), handle=1, loose=True, shows=True) if fields[1] else Kind(extended.list_, (), shows=True)


# Closing is no change that anybody sees, and it may have to wait for a slow READ of its handle: it holds nobody up.
REQUESTS: Final = {
    3: Kind(requests.open_, (_PATH, _U32, _CHANGE), shows=True, variant=_opening),
    4: Kind(requests.close, (_HANDLE,), handle=0, loose=True),
    5: Kind(requests.read, (_HANDLE, _U64, _U32), handle=0, loose=True),
    6: Kind(requests.write, (_HANDLE, _U64, _VIEW), handle=0, loose=True, changes=True),
    7: Kind(requests.lstat, (_PATH,), shows=True),
    8: Kind(requests.fstat, (_HANDLE,), handle=0, shows=True),
    9: Kind(requests.setstat, (_PATH, _CHANGE), changes=True),
    10: Kind(requests.fsetstat, (_HANDLE, _CHANGE), handle=0, changes=True),
    11: Kind(requests.opendir, (_PATH,)),
    12: Kind(requests.readdir, (_HANDLE,), handle=0, loose=True, shows=True),
    13: Kind(requests.remove, (_PATH,), changes=True),
    14: Kind(requests.mkdir, (_PATH, _CHANGE), changes=True),
    15: Kind(requests.rmdir, (_PATH,), changes=True),
    16: Kind(requests.realpath, (_STRING,)),
    17: Kind(requests.stat_, (_PATH,), shows=True),
    18: Kind(requests.rename, (_PATH, _PATH), changes=True),
    19: Kind(requests.readlink, (_PATH,), shows=True),
    20: Kind(requests.symlink, (_STRING, _PATH), changes=True),
}

EXTENDED: Final = {
    b"posix-rename@openssh.com": Kind(extended.posix_rename, (_PATH, _PATH), changes=True),
    b"statvfs@openssh.com": Kind(extended.statvfs, (_PATH,)),
    b"fstatvfs@openssh.com": Kind(extended.fstatvfs, (_HANDLE,), handle=0, loose=True),
    b"hardlink@openssh.com": Kind(extended.hardlink, (_PATH, _PATH), changes=True),
    b"fsync@openssh.com": Kind(extended.fsync, (_HANDLE,), handle=0, loose=True, slow=True),
    b"lsetstat@openssh.com": Kind(extended.lsetstat, (_PATH, _CHANGE), changes=True),
}
VERSIONS: Final = {name: b"2" if b"statvfs" in name else b"1" for name in EXTENDED}

# For those who have said that they know them.
WHERRY: Final = {
    b"open@wherry": Kind(extended.open_whole, (_PATH, _U32, _CHANGE, _U32), shows=True, variant=_opening),
    b"list@wherry": Kind(extended.list_, (_list_path, _HANDLE, _U32), shows=True, variant=_listing),
    b"fallocate@wherry": Kind(extended.fallocate, (_HANDLE, _U32, _U64, _U64), handle=0, changes=True),
}
