"""Bind sources: judged by what they really are on this computer, and said as the machine has them.

A folder that the machine does not see would be an empty one for the container, so that every such source is refused with the
command that shares it.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from launcher import host, sharing
from launcher.errors import Refused, WherryError
from launcher.keeper.proxy.refusal import Refusal
from launcher.sharing import Share

_INSTEAD: Final = "Use a folder of your home, a named volume, or docker cp."
_EMPTY: Final = "the container would see an empty folder"
_KINDS: Final = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


class Folders:
    """What one machine has of this computer. All is asked for again with each source, so that changes hold at once.

    `hidden` tells which private place, in the user's words, a real path is in, "" for none; `failed` why the machine does not
    have a share, by its id, "" when it does.
    """

    def __init__(
        self,
        shares: Callable[[], Sequence[Share]] = tuple,
        hidden: Callable[[str], str] = lambda _path: "",
        failed: Callable[[str], str] = lambda _id: "",
        machine: str = "default",
    ) -> None:
        self._shares = shares
        self._hidden = hidden
        self._failed = failed
        self._command = "wherry" if machine == "default" else f"wherry --machine {machine}"

    def source(self, said: str, path: str, *, makes: bool) -> str:
        """Where the machine has a source that the user calls `said`, by its whole, clean path; `makes`: the engine makes a
        folder when nothing is there. Raises Refusal."""
        real = host.current().real_path(host.current().local_path(path))
        shares = list(self._shares())
        share = sharing.find(shares, real)
        kind = _KINDS.get(_mode(real), "")
        if place := self._hidden(real):
            raise Refusal(400, self._private(place))
        if kind:
            raise Refusal(400, f"{said} is {kind} of this computer, and means nothing in the machine.")
        if share is None:
            raise Refusal(400, self._not_shared(said, path, real, shares))
        self._check_state(said, share)
        if Path(real).is_dir() and not os.access(real, os.R_OK | os.X_OK):
            raise Refusal(400, f"{said} is closed to you: {_EMPTY}.\n        ls -ld {_word(real)}")
        if kept := host.current().withheld(real):
            raise Refusal(400, f"{kept[0]}: {_EMPTY}.\n        {kept[1]}")
        if makes and share.read_only and not os.path.lexists(real):
            words = f"{said} does not exist, and cannot be made: {sharing.shown(share.path)} is shared read-only."
            raise Refusal(400, f"{words}\n        mkdir -p {_word(real)}")
        return sharing.in_guest(share, real)

    def check(self, guest: str) -> None:
        """Whether the machine has what is at that path of its own for a container that is about to start. Raises Refusal.

        What is not on this computer either is the machine's, made there by somebody who spoke to its engine directly.
        """
        share = next((share for share in self._shares() if _has(share, guest)), None)
        if share is not None:
            self._check_state(guest, share)
            return
        local = host.current().local_path(guest)
        folder = local if Path(local).is_dir() else str(Path(local).parent)
        try:
            sharing.check(folder)
        except WherryError:
            return
        if os.path.lexists(local):
            words = f"{local} is not shared with the machine any more, {_EMPTY}."
            raise Refusal(500, f"{words}\n        {self._sharing(folder)}")

    def _check_state(self, said: str, share: Share) -> None:
        if reason := self._failed(share.inside or share.id):
            words = f"{said} is shared with the machine, which does not have it now: {reason}"
            raise Refusal(500, f"{words}\n        {self._command} share list")

    def _private(self, place: str) -> str:
        try:
            sharing.check(sharing.whole(place))
        except Refused as error:  # wherry's own
            return f"{place} is hidden from the machine. {error.message}"
        except WherryError:
            pass  # it is not there yet
        command = f"{self._command} share add {_word(place)}:ro"
        return f"{place} is private and hidden from the machine. To give it to containers:  {command}"

    def _not_shared(self, said: str, path: str, real: str, shares: list[Share]) -> str:
        led = ""
        if real != path and sharing.find(shares, host.current().clean_path(host.current().local_path(path))) is not None:
            led = f"leads to {real}, which "
        if os.path.lexists(real):
            folder = real if Path(real).is_dir() else str(Path(real).parent)
            return f"{said} {led}is not shared with the machine, {_EMPTY}.\n        {self._sharing(folder)}"
        # Not what is there above it, which holds more than was asked for: a disk that is not plugged in would share /Volumes.
        return f"{said} {led}is not there, and not shared with the machine: {_EMPTY}.\n        {self._making(real)}"

    def _making(self, folder: str) -> str:
        """The command that makes it and shares it, or why there is none."""
        try:
            sharing.check(folder)
        except Refused as error:  # the machine's own
            return f"{error.message} {_INSTEAD}"
        except WherryError:
            pass  # it is not there yet
        return f"mkdir -p {_word(folder)} && {self._command} share add {_word(folder)}"

    def _sharing(self, folder: str) -> str:
        """The command that shares it, or why there is none."""
        try:
            sharing.check(folder)
        except WherryError as error:
            return f"{error.message} {_INSTEAD}"
        return f"{self._command} share add {_word(folder)}        (no restart needed)"


def _has(share: Share, guest: str) -> bool:
    return any(guest == place or guest.startswith(f"{place}/") for place in (share.guest, *share.aliases))


def _mode(path: str) -> int:
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except (OSError, ValueError):
        return 0


def _word(path: str) -> str:
    """As a shell takes it; ~ stays."""
    quoted = shlex.quote(path)
    return quoted if quoted == path or not path.startswith("~/") else "~/" + shlex.quote(path[2:])
