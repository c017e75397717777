"""How a published port is had: its reservation, the port itself, or another that stands for it; then it is served."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Protocol

from launcher.keeper.ports import sockets
from launcher.keeper.ports.bindings import NIC, Binding
from launcher.keeper.ports.forwarder import Forwarder, Port
from launcher.keeper.ports.reserved import Reservations
from launcher.keeper.ports.sockets import Bound, Taken

log = logging.getLogger("wherry.ports")


class Others(Protocol):
    """Whoever holds ports of this keeper."""

    def used(self, proto: str) -> set[int]: ...
    def owner(self, binding: Binding) -> str: ...


class Opener:
    """As safe to use from many threads as `others` is."""

    def __init__(self, forwarder: Forwarder, published: tuple[str, ...], reservations: Reservations, others: Others) -> None:
        self._forwarder = forwarder
        self._published = published
        self._reservations = reservations
        self._others = others

    def open(self, binding: Binding) -> tuple[Binding, Port]:
        """What is served: the binding, or one with another port where nobody named this one. Raises Taken."""
        had, bound = self._have(binding)
        return had, self._serve(had, bound)

    def _have(self, binding: Binding) -> tuple[Binding, list[Bound]]:
        """Sockets for it, or for another port where nobody named this one. Raises Taken."""
        reserved = self._reservations.take(replace(binding, guest=NIC, guest_port=0))
        if reserved is not None:
            sockets.listen(binding, reserved)
            return binding, reserved
        try:
            return binding, self._bind(binding)
        except Taken:
            used = self._others.used(binding.proto) | self._reservations.used(binding.proto)
            found = binding.chosen and sockets.choose(binding.proto, binding.address, self._published, used)
            if not found or not found[1]:
                raise
            other = replace(binding, port=found[0], guest_port=binding.target[1])
            log.info("port %d of a container is taken: %d stands for it", binding.port, other.port)
            sockets.listen(other, found[1])
            return other, found[1]

    def _bind(self, binding: Binding) -> list[Bound]:
        try:
            bound = sockets.bind(binding, self._published)
        except Taken as error:
            owner = self._others.owner(binding) if error.in_use else ""
            if not owner:
                raise
            said = f"{error.in_use} by {owner}"
            raise Taken(said, hint=error.hint or "", owner=owner, in_use=error.in_use) from error
        if not bound:  # an IPv6 address that is left out where there is no IPv6 was the only one
            place = ", ".join(self._published)
            raise Taken(
                f"port {binding.port}/{binding.proto} cannot be published: this computer has no address {place}",
                hint="wherry config set publish_address ADDRESS says where ports are published.",
            )
        return bound

    def _serve(self, binding: Binding, bound: list[Bound]) -> Port:
        """Raises Taken, and closes the sockets."""
        try:
            return self._forwarder.open(binding.proto, binding.target, bound)
        except (OSError, RuntimeError) as error:
            sockets.close(bound)
            shown = sockets.name(binding.proto, binding.address or self._published[0], binding.port)
            raise Taken(f"port {shown} cannot be served: {error!r}", hint="wherry logs keeper") from error


def reason(error: Taken) -> str:
    """Why a port cannot be had, for the list."""
    if not error.in_use:
        return error.owner or "cannot be had"
    return f"taken by {error.owner}" if error.owner else "taken"
