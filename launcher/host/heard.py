"""What is heard of a watched folder, in the words of inotify (include/uapi/linux/inotify.h), whoever says it."""

from __future__ import annotations

from typing import Final, NamedTuple

MODIFY: Final = 0x2
ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
UNMOUNT: Final = 0x2000
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
IS_DIR: Final = 0x40000000

NAMES: Final = MOVED_FROM | MOVED_TO | CREATE | DELETE
CONTENT: Final = MODIFY | ATTRIB | CLOSE_WRITE


class Heard(NamedTuple):
    watch: int  # -1 for OVERFLOW
    mask: int
    cookie: int  # the same for both halves of a rename
    name: bytes  # empty: the folder itself
