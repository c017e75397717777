"""Files of this computer that the machine has by a share: its docker client is given their names, and nothing is copied.

On the way of every `wherry run -v`: what reads settings is imported when a path is met that matters.
"""

from __future__ import annotations

import functools
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from launcher import control, host, sharing, store
from launcher.console import Console
from launcher.errors import Usage, WherryError

if TYPE_CHECKING:
    from launcher.config import Shares
    from launcher.privacy import Private


class Client(Protocol):
    """The machine, as those need it who run its docker client."""

    name: str
    console: Console

    def control(self) -> Path: ...
    def client(self, argv: list[str], *, cwd: str | None = None) -> int: ...


class Shared:
    """What one machine has. Nothing is asked, and no machine started, before a path is met that should be there."""

    def __init__(self, machine: Client) -> None:
        self._machine = machine
        self._served: frozenset[str] | None = None

    @functools.cached_property
    def _known(self) -> tuple[list[sharing.Share], Private]:
        """What is shared by the settings, and what is hidden of it."""
        from launcher import privacy

        wanted = _wanted(self._machine.name)
        shares = sharing.shares_in(wanted)
        return shares, privacy.Private(shares, privacy.hidden_in(wanted))

    def place(self, path: str | Path, *, write: bool = False, follow: bool = True) -> str | None:
        """Where the machine has a file or folder of this computer, there or still to be made; None when it has not, or cannot
        `write` there. Without `follow` a link at its end stays one."""
        whole = sharing.whole(os.fspath(path), sharing.here())
        real = host.current().real_path(whole)
        if not follow:
            above = Path(whole)
            real = str(Path(host.current().real_path(str(above.parent))) / above.name) if above.name else real
        shares, private = self._known
        share = sharing.find(shares, real) if _plain(real) else None
        if share is None or (write and share.read_only) or private.place(real):
            return None
        return sharing.in_guest(share, real) if (share.inside or share.id) in self._ids() else None

    def needed(self, path: str | Path, what: str, *, write: bool = False) -> str:
        """As `place`. Raises Usage, with what shares it, when it is not there."""
        place = self.place(path, write=write)
        if place is None:
            import shlex

            folder = Path(sharing.whole(os.fspath(path), sharing.here()))
            folder = folder if folder.is_dir() else folder.parent
            wherry = "wherry" if self._machine.name == "default" else f"wherry --machine {self._machine.name}"
            far = " so that it can write there" if write else ""
            raise Usage(
                f"{what} {path} is not shared with the machine{far}.", hint=f"{wherry} share add {shlex.quote(str(folder))}"
            )
        return place

    def here(self) -> str | None:
        """Where the machine has our folder."""
        try:
            return self.place(Path.cwd())
        except OSError:
            return None

    def _ids(self) -> frozenset[str]:
        """The shares that the machine has now, by what its keeper says."""
        if self._served is None:
            try:
                found = control.ask(self._machine.control(), "shares")["shares"]
            except Usage:  # the keeper of an older wherry
                found = []
            self._served = frozenset(share["id"] for share in found if share["state"] == "served")
        return self._served


def _plain(path: str) -> bool:
    """A file, a folder, a link, or nothing yet; all else means something on this computer alone."""
    try:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return True
    return kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


def _wanted(name: str) -> Shares:
    from launcher.config import Shares

    try:
        return store.machine(name).read_config().shares
    except WherryError:
        return Shares()  # it is still to be made, or says itself what is wrong
