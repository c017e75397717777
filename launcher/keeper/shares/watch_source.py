"""Where changes are heard from: the kernel, folder by folder, or whole trees by a library, heeded folder by folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from launcher import host
from launcher.host.heard import Heard


class Walk(Protocol):
    """Down from the root of a share, over no link."""

    def enter(self, name: bytes) -> None:
        """Raises OSError, also when it is a link or no folder."""

    def watch(self, *, full: bool) -> int:
        """Watch where we are: the number of the watch, the same one for the same folder. Raises OSError: ENOSPC when there is
        no room for more, ENOTSUP when not all of its changes would be told."""


class Source(Protocol):
    """`walk`, `remove` and `wake` are called by any thread, though one at a time; `wait`, `read` and `renew` by one."""

    @property
    def certain(self) -> bool:
        """Whether each change is told, so that the guest may keep what it was shown until then."""

    def limit(self) -> int: ...
    def walk(self, root: Path) -> AbstractContextManager[Walk]: ...
    def remove(self, watch: int) -> None: ...

    def trees(self, folders: Sequence[Path]) -> None:
        """Nothing outside of these will be watched in full from now on."""

    def wait(self, seconds: float | None) -> None: ...
    def wake(self) -> None: ...
    def read(self) -> list[Heard]: ...

    def renew(self) -> None:
        """Forget all watches, and what was heard."""

    def close(self) -> None: ...


def new_source() -> Source:
    """The system's own. Raises OSError when it has none left for us."""
    found: Source | None = host.current().folder_watch()
    if found is not None:
        return found
    from launcher.keeper.shares.watch_library import Library  # installed only where it is used

    return Library()
