"""Which ports are held for whom: a container or a service by its id, or a forward that was made by hand."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from launcher.errors import NotRunning
from launcher.keeper.ports import opener, trial
from launcher.keeper.ports.bindings import Binding
from launcher.keeper.ports.forwarder import Forwarder, Port
from launcher.keeper.ports.held import Holder
from launcher.keeper.ports.reserved import Reservation, Reservations, Wish
from launcher.keeper.ports.sockets import Taken

log = logging.getLogger("wherry.ports")

RETRY_SECONDS: Final = 5.0  # for a port that somebody else has; only while there is one


class Holders:
    """Safe to use from many threads."""

    def __init__(self, forwarder: Forwarder, published: tuple[str, ...], changed: Callable[[], None] = lambda: None) -> None:
        """`published`: the addresses of this computer for ports whose user named none. `changed` is called when a
        later try had one."""
        self._forwarder = forwarder
        self._published = published
        self._changed = changed
        self._reservations = Reservations()
        self._opener = opener.Opener(forwarder, published, self._reservations, self)
        self._holders: dict[str, Holder] = {}
        self._stages = itertools.count(1)
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
        """Hold all, or raise Taken, or NotRunning after `close`, and hold none. Until `settle` nothing is freed."""
        with self._lock:
            self._check_open()
            holder = self._holders.get(identity) or Holder(name, 0)
            opened: dict[Binding, Port] = {}
            try:
                for binding in map(holder.as_held, wanted):
                    if binding not in holder.ports:
                        had, port = self._opener.open(binding)
                        opened[had] = port
            except BaseException:
                for port in opened.values():
                    self._forwarder.close(port)
                raise
            self._holders[identity] = holder
            holder.ended = holder.ended and holder.starting > 0
            holder.starting += 1
            holder.unheard += 1
            holder.stage = next(self._stages)
            holder.missing = {}
            holder.ports.update(opened)

    def settle(self, identity: str, *, started: bool) -> bool:
        """A start is over. Whether what is held can be left as it is; else the engine is to be asked."""
        with self._lock:
            holder = self._holders.get(identity)
            if holder is None:
                return True
            holder.starting -= 1
            holder.unheard = holder.unheard if started else max(holder.unheard - 1, 0)
            holder.stage = next(self._stages)
            return bool(holder.starting) or (started and not holder.ended)

    # As much as can be had

    def hold(self, identity: str, name: str, wanted: Iterable[Binding]) -> None:
        """Hold exactly what is wanted, as far as it can be had; what cannot is tried again."""
        wanted = list(wanted)
        with self._lock:
            if self._closed or (not wanted and identity not in self._holders):
                return
            holder = self._holders.setdefault(identity, Holder(name, next(self._stages)))
            holder.name = name or holder.name
            wanted = [holder.as_held(binding) for binding in wanted]
            for binding in [held for held in holder.ports if held not in wanted]:
                self._forwarder.close(holder.ports.pop(binding))
            holder.missing = {binding: why for binding, why in holder.missing.items() if binding in wanted}
            for binding in wanted:
                if binding not in holder.ports:
                    self._try(holder, binding)
            if holder.missing:
                self._retry_later()

    def stage(self, identity: str) -> int:
        """A number that changes when a start begins and when it is over; 0 when nothing is held for it."""
        with self._lock:
            holder = self._holders.get(identity)
            return 0 if holder is None else holder.stage

    def free(self, identity: str, stage: int | None = None) -> bool:
        """It is over; while a start is under way only noted.

        False, and nothing is done, when the stage is another than `stage`: who asked the engine then may not know of a start.
        """
        with self._lock:
            holder = self._holders.get(identity)
            if holder is None:
                return True
            if stage is not None and stage != holder.stage:
                return False
            if holder.starting:
                holder.ended = True
                return True
            del self._holders[identity]
        self._close_all(holder)
        return True

    def heard(self, identity: str) -> None:
        """The engine said that it started."""
        with self._lock:
            if (holder := self._holders.get(identity)) is not None:
                holder.unheard = max(holder.unheard - 1, 0)

    def ended(self, identity: str) -> bool:
        """The engine said so: it is freed. False, and nothing is done, when a start was not heard of yet: the end may be that
        of the life before."""
        with self._lock:
            holder = self._holders.get(identity)
            if holder is not None and holder.unheard and not holder.starting:
                return False
            return self.free(identity)

    def in_the_way(self, identity: str, wanted: list[Binding]) -> list[str]:
        """Who else has a port of these."""
        with self._lock:
            others = [(other, holder) for other, holder in self._holders.items() if other != identity]
            return [other for other, holder in others if any(holder.has(one, self._published) for one in wanted)]

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
        """Choose and keep a port for each. Raises Taken when there is none, NotRunning after `close`."""
        with self._lock:
            self._check_open()
            return self._reservations.reserve(wanted, self._published, self.used)

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
        """One entry for each address and port: container (empty: by hand), protocol, address, port, guest_port (where the
        machine has it), inside (the container's own port; by hand the machine's), state ("ok", or by whom it is taken)."""
        with self._lock:
            entries = [entry for holder in self._holders.values() for entry in holder.listing(self._published)]
        return sorted(entries, key=lambda entry: (entry["protocol"], entry["port"], entry["address"]))

    def used(self, proto: str) -> set[int]:
        """Ports that the engine has given out in the guest."""
        with self._lock:
            return {
                binding.target[1] for holder in self._holders.values() for binding in [*holder.ports, *holder.missing]
                if binding.proto == proto
            }  # fmt: skip

    def owner(self, binding: Binding) -> str:
        """Which of ours is in the way of a port; empty for none."""
        with self._lock:
            found = next((holder for holder in self._holders.values() if holder.has(binding, self._published)), None)
        if found is None:
            return ""
        return f"container {found.name}" if found.name else "wherry port add"

    def _retry_later(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = threading.Timer(RETRY_SECONDS, self._retry)
            self._timer.daemon = True
            self._timer.start()

    def _retry(self) -> None:
        try:
            with self._lock:
                missing = [(identity, binding) for identity, holder in self._holders.items() for binding in holder.missing]
            had = [self._try_again(*one) for one in missing if trial.succeeds(one[1], self._published)]
        finally:
            with self._lock:
                self._timer = None
                if any(holder.missing for holder in self._holders.values()):
                    self._retry_later()
        if any(had):
            self._changed()

    def _try_again(self, identity: str, binding: Binding) -> bool:
        """Whether something came of it; what is not missing any more is left."""
        with self._lock:
            holder = self._holders.get(identity)
            return holder is not None and binding in holder.missing and self._try(holder, binding)

    def _try(self, holder: Holder, binding: Binding) -> bool:
        """Hold it, or note why it cannot be had."""
        try:
            had, port = self._opener.open(binding)
        except Taken as error:
            why = opener.reason(error)
            if holder.missing.get(binding) != why:
                log.warning("%s", error.message)
            holder.missing[binding] = why
            return False
        holder.missing.pop(binding, None)
        holder.ports[had] = port
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise NotRunning("the machine is stopping", hint="wherry up")

    def _close_all(self, holder: Holder) -> None:
        for port in holder.ports.values():
            self._forwarder.close(port)
