"""Owner and mode that the guest has given to an entry, which this computer does not show itself."""

from __future__ import annotations

import os
from typing import NamedTuple, Protocol


class Owner(NamedTuple):
    """`mode` is the permission bits as they were asked for, up to 0o7777; None: as they are here."""

    uid: int
    gid: int
    mode: int | None


class Remembered(Protocol):
    """Owners by entry: device, inode and what tells it from a later one with the same."""

    @property
    def empty(self) -> bool:
        """Nothing is remembered: nobody needs to ask."""

    def of(self, st: os.stat_result) -> Owner | None:
        """What is remembered of the entry."""

    def remember(self, st: os.stat_result, owner: Owner) -> None:
        """Remember it, in place of what was."""

    def forget(self, st: os.stat_result) -> None:
        """The entry is gone."""


class Nothing:
    """Remembers nothing: for a share that is only read."""

    empty = True

    def of(self, st: os.stat_result) -> Owner | None:  # noqa: ARG002
        return None

    def remember(self, st: os.stat_result, owner: Owner) -> None:
        pass

    def forget(self, st: os.stat_result) -> None:
        pass
