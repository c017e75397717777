"""Which ports are held for whom: a container or a service by its id, or a forward that was made by hand."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from launcher.keeper.ports import sockets
from launcher.keeper.ports.bindings import CHOSEN_FROM, NIC, Binding
from launcher.keeper.ports.forwarder import Forwarder, Port
from launcher.keeper.ports.reserved import Reservation, Reservations
from launcher.keeper.ports.sockets import Bound, Taken

log = logging.getLogger("wherry.ports")

RETRY_SECONDS: Final = 5.0  # for a port that somebody else has; only while there is one


@dataclass
class Wish:
    """A port to be chosen: of `among`, or any when that is empty. `port` is the answer."""

    proto: str
    address: str
    among: range = range(0)
    port: int = 0


@dataclass
class Holder:
    """What is held for one of them."""

    name: str
    ports: dict[Binding, Port] = field(default_factory=dict)
    missing: dict[Binding, str] = field(default_factory=dict)  # with the reason, in words
    starting: int = 0  # requests under way: nothing is freed meanwhile
    ended: bool = False  # the engine said so while one was

    def as_held(self, wanted: Binding) -> Binding:
        """What is held for it: another port of this computer may stand for one that nobody named."""
        if not wanted.chosen:
            return wanted
        alike = (
            one for one in self.ports if (one.proto, one.address, one.target) == (wanted.proto, wanted.address, wanted.target)
        )
        return next(alike, wanted)


class Holders:
    """Safe to use from many threads."""

    def __init__(self, forwarder: Forwarder, published: tuple[str, ...], changed: Callable[[], None] = lambda: None) -> None:
        """`published`: the addresses of this computer for ports whose user named none. `changed` is called after a retry."""
        self._forwarder = forwarder
        self._published = published
        self._changed = changed
        self._reservations = Reservations()
        self._holders: dict[str, Holder] = {}
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._closed = False

    def known(self) -> list[str]:
        with self._lock:
            return list(self._holders)

    def rename(self, identity: str, name: str) -> None:
        with self._lock:
            if identity in self._holders:
                self._holders[identity].name = name

    # All or nothing, for a start that is under way

    def begin(self, identity: str, name: str, wanted: list[Binding]) -> None:
        """Hold all, or raise Taken and hold none. Until `settle` nothing is freed."""
        with self._lock:
            holder = self._holders.get(identity) or Holder(name)
            bound: dict[Binding, list[Bound]] = {}
            try:
                for binding in map(holder.as_held, wanted):
                    if binding not in holder.ports:
                        had, found = self._have(binding)
                        bound[had] = found
            except Taken:
                for one in bound.values():
                    sockets.close(one)
                raise
            self._holders[identity] = holder
            holder.ended = holder.ended and holder.starting > 0
            holder.starting += 1
            holder.missing = {}
            for binding, one in bound.items():
                self._serve(holder, binding, one)

    def settle(self, identity: str, *, started: bool) -> bool:
        """A start is over. Whether what is held can be left as it is; else the engine is to be asked."""
        with self._lock:
            holder = self._holders.get(identity)
            if holder is None:
                return True
            holder.starting -= 1
            return bool(holder.starting) or (started and not holder.ended)

    # As much as can be had

    def hold(self, identity: str, name: str, wanted: Iterable[Binding]) -> None:
        """Hold exactly what is wanted, as far as it can be had; what cannot is tried again."""
        wanted = list(wanted)
        with self._lock:
            if self._closed or (not wanted and identity not in self._holders):
                return
            holder = self._holders.setdefault(identity, Holder(name))
            holder.name, holder.missing = name or holder.name, {}
            wanted = [holder.as_held(binding) for binding in wanted]
            for binding in [held for held in holder.ports if held not in wanted]:
                self._forwarder.close(holder.ports.pop(binding))
            for binding in wanted:
                if binding in holder.ports:
                    continue
                try:
                    self._serve(holder, *self._have(binding))
                except Taken as error:
                    holder.missing[binding] = f"taken by {error.owner}" if error.owner else "taken"
                    log.warning("%s", error.message)
            if holder.missing:
                self._retry_later()

    def free(self, identity: str) -> None:
        """It is over; while a start is under way only noted."""
        with self._lock:
            holder = self._holders.get(identity)
            if holder is None:
                return
            if holder.starting:
                holder.ended = True
                return
            del self._holders[identity]
        self._close_all(holder)

    def close(self) -> None:
        """Free everything, for good."""
        with self._lock:
            self._closed = True
            holders, self._holders = list(self._holders.values()), {}
            if self._timer is not None:
                self._timer.cancel()
        self._reservations.close()
        for holder in holders:
            self._close_all(holder)

    # For containers that are about to be created

    def reserve(self, wanted: list[Wish]) -> Reservation:
        """Choose and keep a port for each. Raises Taken when there is none."""
        bound: dict[Binding, list[Bound]] = {}
        with self._lock:
            for wish in wanted:
                taken = self.used(wish.proto) | self._reservations.used(wish.proto)
                taken |= {one.port for one in bound if one.proto == wish.proto}
                found = sockets.choose(wish.proto, wish.address, self._published, taken, wish.among)
                if found is None:
                    for one in bound.values():
                        sockets.close(one)
                    raise _none_free(wish)
                wish.port = found[0]
                bound[Binding(wish.proto, wish.address, found[0])] = found[1]
            return self._reservations.add(bound)

    def created(self, reservation: Reservation, identity: str) -> None:
        """The engine has made the container; empty: it has not."""
        if identity:
            reservation.identity = identity
        else:
            self._reservations.release(reservation)

    def removed(self, identity: str) -> None:
        """The container is gone, started or not."""
        self._reservations.removed(identity)
        self.free(identity)

    # What is held

    def moved(self, identity: str) -> dict[tuple[str, int], int]:
        """Protocol and chosen port, with the port of this computer that stands for it now; only where that is another."""
        with self._lock:
            holder = self._holders.get(identity)
            ports = holder.ports if holder is not None else {}
            return {(one.proto, one.chosen): one.port for one in ports if one.chosen not in (0, one.port)}

    def any_moved(self) -> bool:
        with self._lock:
            return any(one.chosen not in (0, one.port) for holder in self._holders.values() for one in holder.ports)

    def listing(self) -> list[dict[str, Any]]:
        """One entry for each address and port: container (empty: by hand), protocol, address, port, guest_port, state ("ok", or
        by whom it is taken)."""
        with self._lock:
            entries = [
                _entry(holder.name, binding, address, state)
                for holder in self._holders.values()
                for binding, state in [*((port, "ok") for port in holder.ports), *holder.missing.items()]
                for address in sockets.addresses(binding, self._published)
            ]
        return sorted(entries, key=lambda entry: (entry["protocol"], entry["port"], entry["address"]))

    def used(self, proto: str) -> set[int]:
        """Ports that the engine has given out in the guest."""
        with self._lock:
            return {
                binding.target[1] for holder in self._holders.values() for binding in [*holder.ports, *holder.missing]
                if binding.proto == proto
            }  # fmt: skip

    def _retry_later(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = threading.Timer(RETRY_SECONDS, self._retry)
            self._timer.daemon = True
            self._timer.start()

    def _retry(self) -> None:
        with self._lock:
            self._timer = None
            for identity, holder in list(self._holders.items()):
                if holder.missing:
                    self.hold(identity, holder.name, [*holder.ports, *holder.missing])
        self._changed()

    def _have(self, binding: Binding) -> tuple[Binding, list[Bound]]:
        """Sockets for it, or for another port where nobody named this one. Raises Taken."""
        reserved = self._reservations.take(replace(binding, guest=NIC, guest_port=0))
        if reserved is not None:
            sockets.listen(binding, reserved)
            return binding, reserved
        try:
            return binding, self._bind(binding)
        except Taken:
            used = self.used(binding.proto) | self._reservations.used(binding.proto)
            found = binding.chosen and sockets.choose(binding.proto, binding.address, self._published, used)
            if not found:
                raise
            other = replace(binding, port=found[0], guest_port=binding.target[1])
            log.info("port %d of a container is taken: %d stands for it", binding.port, other.port)
            sockets.listen(other, found[1])
            return other, found[1]

    def _bind(self, binding: Binding) -> list[Bound]:
        try:
            return sockets.bind(binding, self._published)
        except Taken as error:
            owner = self._own(binding)
            if not owner:
                raise
            raise Taken(f"{error.message.partition(' by ')[0]} by {owner}", hint=error.hint or "", owner=owner) from error

    def _own(self, binding: Binding) -> str:
        """Which of ours has the port."""
        for holder in self._holders.values():
            if any((held.proto, held.port) == (binding.proto, binding.port) for held in holder.ports):
                return f"container {holder.name}" if holder.name else "wherry port add"
        return ""

    def _serve(self, holder: Holder, binding: Binding, bound: list[Bound]) -> None:
        holder.ports[binding] = self._forwarder.open(binding.proto, binding.target, bound)

    def _close_all(self, holder: Holder) -> None:
        for port in holder.ports.values():
            self._forwarder.close(port)


def _none_free(wish: Wish) -> Taken:
    ports = list(wish.among)
    if not ports:
        return Taken(
            f"no {wish.proto} port is free from {CHOSEN_FROM[0]} to {CHOSEN_FROM[-1]}", hint="Name one: -p HOST:CONTAINER"
        )
    return Taken(f"all {wish.proto} ports from {ports[0]} to {ports[-1]} are in use", hint="Free one, or publish others.")


def _entry(name: str, binding: Binding, address: str, state: str) -> dict[str, Any]:
    return {
        "container": name, "protocol": binding.proto, "address": address, "port": binding.port,
        "guest_port": binding.target[1], "state": state,
    }  # fmt: skip
