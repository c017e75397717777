"""What the guest asked for by chown and chmod, as the tree of a share sees it: remembered here, never set on this computer."""

from __future__ import annotations

from typing import NamedTuple, Protocol

# Where a file is, for what its stat does not tell: (descriptor of its folder, name), or a descriptor of the file itself.
At = tuple[int, bytes] | int | None


class Owner(NamedTuple):
    """`mode`: the twelve permission bits that the guest asked for; None: as this computer has them."""

    uid: int
    gid: int
    mode: int | None


class Found(Protocol):
    """What tells a file from others: os.stat_result, or the Windows tree's own. Where there is a birth time, it has
    `st_birthtime_ns` or `st_birthtime` too."""

    @property
    def st_dev(self) -> int: ...
    @property
    def st_ino(self) -> int: ...


class Remembered(Protocol):
    """Thread-safe. A file is told from a later one with its inode by its birth time. Linux's stat has none: it is asked for by
    `at`, and only for a file whose device and inode are known here. Without it, they alone decide."""

    def of(self, st: Found, at: At = None) -> Owner | None:
        """What is remembered about the file; costs a lookup in a dict when that is nothing. Raises nothing."""

    def remember(self, st: Found, owner: Owner, at: At = None) -> None:
        """It is kept once this has returned, whatever happens to this process; a power cut may take the last second.
        Raises OSError (ENOSPC, EIO) when it could not be kept: the guest is to be told."""

    def forget(self, st: Found) -> None:
        """The file is gone: its last name was removed. Raises nothing."""

    @property
    def empty(self) -> bool:
        """Nothing at all is remembered, so nothing need be asked."""


class Nothing:
    """Remembers nothing: for a share that is only read."""

    empty = True

    def of(self, st: Found, at: At = None) -> Owner | None:  # noqa: ARG002
        return None

    def remember(self, st: Found, owner: Owner, at: At = None) -> None:
        pass

    def forget(self, st: Found) -> None:
        pass
