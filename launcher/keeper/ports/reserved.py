"""Ports chosen for containers that are created and not started yet: bound, so that nobody else has them, and not listening."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from launcher.keeper.ports import sockets
from launcher.keeper.ports.bindings import CHOSEN_FROM, Binding
from launcher.keeper.ports.sockets import Bound, Taken

# A container may never be started. When its port was given up and is taken then, another is opened for it.
KEPT_SECONDS: Final = 600.0


@dataclass
class Wish:
    """A port to be chosen: of `among`, or any when that is empty. `port` is the answer."""

    proto: str
    address: str
    among: range = range(0)
    port: int = 0


class Reservation:
    """What one create request got, until `release`, which may be called more than once."""

    def __init__(self) -> None:
        self.bound: dict[Binding, list[Bound]] = {}
        self.identity = ""  # the container's, when the engine has made it
        self.timer: threading.Timer | None = None


class Reservations:
    """Safe to use from many threads."""

    def __init__(self) -> None:
        self._all: set[Reservation] = set()
        self._lock = threading.Lock()

    def reserve(self, wanted: list[Wish], published: tuple[str, ...], used: Callable[[str], set[int]]) -> Reservation:
        """Choose and keep a port for each. `used` tells those of a protocol that are not to be chosen.

        Raises Taken when there is none; nothing is kept then.
        """
        made = Reservation()
        for wish in wanted:
            taken = used(wish.proto) | self.used(wish.proto) | {one.port for one in made.bound if one.proto == wish.proto}
            found = sockets.choose(wish.proto, wish.address, published, taken, wish.among)
            if not found or not found[1]:
                self.release(made)
                raise _none_free(wish)
            wish.port = found[0]
            made.bound[Binding(wish.proto, wish.address, found[0])] = found[1]
        self._keep(made)
        return made

    def _keep(self, made: Reservation) -> None:
        made.timer = threading.Timer(KEPT_SECONDS, self.release, (made,))
        made.timer.daemon = True
        with self._lock:
            self._all.add(made)
        made.timer.start()

    def take(self, binding: Binding) -> list[Bound] | None:
        """The sockets of a container that is about to start."""
        with self._lock:
            found = next((one for one in self._all if binding in one.bound), None)
            bound = found.bound.pop(binding) if found is not None else None
            done = found if found is not None and not found.bound else None
        if done is not None:
            self.release(done)
        return bound

    def release(self, reservation: Reservation) -> None:
        with self._lock:
            self._all.discard(reservation)
            left, reservation.bound = list(reservation.bound.values()), {}
        if reservation.timer is not None:
            reservation.timer.cancel()
        for bound in left:
            sockets.close(bound)

    def removed(self, identity: str) -> None:
        """A container is gone."""
        with self._lock:
            found = [one for one in self._all if one.identity == identity]
        for one in found:
            self.release(one)

    def close(self) -> None:
        with self._lock:
            found = list(self._all)
        for one in found:
            self.release(one)

    def used(self, proto: str) -> set[int]:
        with self._lock:
            return {binding.port for one in self._all for binding in one.bound if binding.proto == proto}


def _none_free(wish: Wish) -> Taken:
    ports = list(wish.among)
    if not ports:
        return Taken(
            f"no {wish.proto} port is free from {CHOSEN_FROM[0]} to {CHOSEN_FROM[-1]}", hint="Name one: -p HOST:CONTAINER"
        )
    return Taken(f"all {wish.proto} ports from {ports[0]} to {ports[-1]} are in use", hint="Free one, or publish others.")
