"""What the keeper and its process for shares say to each other: JSON, one object a line.

To it: what Orders has ("shares" and so on) is all there is to be; "connect" with {"port", "client_key", "host_key"} where the
guest is; "held" whether it stands still; "woke" that time jumped; "bound" with {ID: [PATH...]} what containers have of each
share; "quiet" that nothing is served until the next "connect". One that has a "number" is answered once it was obeyed.
From it: {"shares": {ID: {"state", "detail"}}}, all of them, whenever one has changed; {"note": TEXT} what the user should know;
{"used": true} that the guest used a share lately; {"obeyed": NUMBER}.
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal, NamedTuple

State = Literal["waiting", "served", "failed"]
LONGEST: Final = 4 << 20  # bytes of a line


class Wanted(NamedTuple):
    """One share as it is to be. Paths are text; what is no UTF-8 on this computer is escaped (PEP 383)."""

    id: str
    path: str
    read_only: bool
    inside: str = ""  # the id of the share that it lies in: it is a rule of that share, and not served itself


class Orders(NamedTuple):
    """All that is to be."""

    shares: tuple[Wanted, ...] = ()
    hidden: tuple[str, ...] = ()  # whole paths, as are the next
    protected: tuple[str, ...] = ()
    events: bool = True
    folder: str = ""  # where what is remembered of owners is kept

    def to_json(self) -> dict[str, Any]:
        """As a message."""
        return {**self._asdict(), "shares": [share._asdict() for share in self.shares]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Orders:
        shares = tuple(Wanted(**share) for share in data["shares"])
        return cls(shares, tuple(data["hidden"]), tuple(data["protected"]), data["events"], data["folder"])

    def inside(self, share: Wanted) -> tuple[Wanted, ...]:
        """The shares that are rules of this one."""
        return tuple(other for other in self.shares if other.inside == share.id)


class Told(NamedTuple):
    """How one share does."""

    state: State
    detail: str = ""


def line(message: dict[str, Any]) -> bytes:
    """One message. ASCII: escapes carry what is no Unicode."""
    return json.dumps(message).encode("ascii") + b"\n"
