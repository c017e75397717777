"""Which places of a machine's shares are hidden from it, for those who are asked before the server is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import host, sharing
from launcher.sftp.places import defaults
from launcher.sftp.policy import Policy
from launcher.sharing import Share

if TYPE_CHECKING:
    from launcher.config import MachineConfig, Shares


def hidden_places(config: MachineConfig) -> list[str]:
    """The whole paths of what is hidden from the machine, there or not: our list with the changes of the config, and wherry's
    own folders, which no change takes out."""
    return hidden_in(config.shares)


def hidden_in(wanted: Shares) -> list[str]:
    """As `hidden_places`, of the settings [shares] alone."""
    found = {sharing.whole(f"~/{place}"): None for place in defaults(host.current().NAME).hidden}
    for change in wanted.hidden:
        if change.startswith("-"):
            found.pop(sharing.whole(change[1:]), None)
        else:
            found[sharing.whole(change)] = None
    return [*found, *sharing.wherrys()]


def protected_places() -> list[str]:
    """The whole paths of what no machine changes, there or not: from where this computer runs code at a login or in a shell."""
    return [sharing.whole(f"~/{place}") for place in defaults(host.current().NAME).guarded]


class Private:
    """The hidden places of these shares: `hidden` are their whole paths, whether they exist or not."""

    def __init__(self, shares: Sequence[Share], hidden: Sequence[str]) -> None:
        self._shares = list(shares)
        self._hidden = hidden
        self._policies: dict[str, Policy | None] = {}

    def place(self, path: str) -> str:
        """The hidden place that a real path is in, in the user's words; empty when there is none."""
        outermost = sharing.find([share for share in self._shares if not share.inside], path)
        policy = self._policy(outermost) if outermost is not None else None
        found = policy.name_of(path) if policy is not None else None
        return found or ""

    def there(self, share: Share) -> list[str]:
        """Those that exist in a share, in the user's words; none for one that lies in another, which has them."""
        policy = None if share.inside else self._policy(share)
        if policy is None:
            return []
        return [sharing.shown(place) for place in self._hidden if os.path.lexists(place) and policy.hides(place)]

    def _policy(self, share: Share) -> Policy | None:
        """None for a share that is not there now."""
        if share.id not in self._policies:
            given = [(other.path, other.read_only) for other in self._shares if other.inside == share.id]
            try:
                self._policies[share.id] = Policy(Path(share.path), hidden=self._hidden, given=given)
            except OSError:
                self._policies[share.id] = None
        return self._policies[share.id]
