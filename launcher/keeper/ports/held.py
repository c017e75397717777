"""What is held for one container, service or forward made by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from launcher.keeper.ports import sockets
from launcher.keeper.ports.bindings import Binding
from launcher.keeper.ports.forwarder import Port

_WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104


@dataclass
class Holder:
    """`stage` is another number, and never 0, after each beginning and end of a start."""

    name: str
    stage: int
    ports: dict[Binding, Port] = field(default_factory=dict)
    missing: dict[Binding, str] = field(default_factory=dict)  # with the reason, in words
    starting: int = 0  # requests under way: nothing is freed meanwhile
    unheard: int = 0  # starts of whose event is still to come
    ended: bool = False  # the engine said so while a start was under way

    def as_held(self, wanted: Binding) -> Binding:
        """What is held for it: another port of this computer may stand for one that nobody named."""
        if not wanted.chosen:
            return wanted
        alike = (
            one for one in self.ports if (one.proto, one.address, one.target) == (wanted.proto, wanted.address, wanted.target)
        )
        return next(alike, wanted)

    def has(self, binding: Binding, published: tuple[str, ...]) -> bool:
        """Whether one of its ports is in the way of that one."""
        wanted = sockets.addresses(binding, published)
        return any(
            (held.proto, held.port) == (binding.proto, binding.port) and _overlap(wanted, sockets.addresses(held, published))
            for held in self.ports
        )

    def listing(self, published: tuple[str, ...]) -> list[dict[str, Any]]:
        """As Holders.listing, for this one."""
        return [
            {
                "container": self.name, "protocol": binding.proto, "address": address, "port": binding.port,
                "guest_port": binding.target[1], "inside": binding.inside or binding.target[1], "state": state,
            }
            for binding, state in [*((port, "ok") for port in self.ports), *self.missing.items()]
            for address in sockets.addresses(binding, published)
        ]  # fmt: skip


def _overlap(some: Iterable[str], others: Iterable[str]) -> bool:
    # `::` is bound for IPv6 alone.
    return any(
        one == other or ((":" in one) == (":" in other) and (one in _WILDCARDS or other in _WILDCARDS))
        for one in some
        for other in others
    )
