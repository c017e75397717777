"""Which ports are held for whom: bound before a container's start goes to the engine, freed when it has stopped.

A holder is a container or a service by its id, or a forward that was made by hand. What was bound for a start request is kept
while that is under way, whatever the events say meanwhile; afterwards the engine's word counts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from launcher.errors import EngineFailed, WherryError
from launcher.keeper import engine
from launcher.keeper.events import Event
from launcher.keeper.ports import bindings, sockets
from launcher.keeper.ports.bindings import Binding
from launcher.keeper.ports.forwarder import Forwarder, Port
from launcher.keeper.ports.sockets import Bound, Taken
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.ports")

RETRY_SECONDS: Final = 5.0  # for a port that somebody else has; only while there is one


@dataclass
class Holder:
    """What is held for one container, service, or by hand."""

    name: str
    ports: dict[Binding, Port] = field(default_factory=dict)
    missing: dict[Binding, str] = field(default_factory=dict)  # with the reason, in words
    starting: int = 0  # requests under way
    ended: bool = False  # the engine said so while one was


class Publisher:
    """Safe to use from many threads."""

    def __init__(self, connection: Callable[[], Connection], forwarder: Forwarder, published: tuple[str, ...]) -> None:
        """`published`: the addresses of this computer for ports whose user named none."""
        self._connection = connection
        self._forwarder = forwarder
        self._published = published
        self._holders: dict[str, Holder] = {}
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._closed = False

    # A start request on its way

    def before_start(self, reference: str) -> Callable[[int], None]:
        """Bind all that a container publishes. What is returned is to be told the status of the engine's answer, 0 for none.

        Raises Taken; nothing is bound then, and a container that was to be removed at its end is removed. What else is wrong, the
        engine will say.
        """
        try:
            connection = self._connection()
            found = engine.call(connection, "GET", f"/containers/{reference}/json")
        except WherryError:
            return _nothing
        identity = str(found["Id"])
        wanted, _ = bindings.of_container(found)
        name = str(found.get("Name") or "").lstrip("/") or identity[:12]
        try:
            with self._lock:
                holder = self._holders.setdefault(identity, Holder(name))
                if not holder.starting:
                    holder.ended = False
                holder.starting += 1
                self._hold_all(identity, holder, wanted)
        except Taken:
            if (found.get("HostConfig") or {}).get("AutoRemove"):
                self._remove(connection, identity)
            raise
        return lambda status: self._settle(identity, status)

    def _hold_all(self, identity: str, holder: Holder, wanted: list[Binding]) -> None:
        bound: dict[Binding, list[Bound]] = {}
        try:
            for binding in wanted:
                if binding not in holder.ports:
                    bound[binding] = self._bind(binding)
        except Taken:
            for one in bound.values():
                sockets.close(one)
            holder.starting -= 1
            if not holder.ports and not holder.starting:
                self._holders.pop(identity, None)
            raise
        for binding, one in bound.items():
            self._serve(holder, binding, one)

    def _settle(self, identity: str, status: int) -> None:
        with self._lock:
            holder = self._holders.get(identity)
            if holder is None:
                return
            holder.starting -= 1
            if holder.starting or (status in (204, 304) and not holder.ended):
                return
        # It did not start, or has ended again, or nobody knows: the engine does.
        self._refresh(identity)

    @staticmethod
    def _remove(connection: Connection, identity: str) -> None:
        """As `docker run --rm` would have had it: the client waits for the removal, and would for ever."""
        try:
            engine.call(connection, "DELETE", f"/containers/{identity}?v=1&force=1")
        except WherryError as error:
            log.warning("a container that was not started stays: %s", error.message)

    # Events of the engine, one at a time

    def on_event(self, event: Event) -> None:
        kind, action = str(event.get("Type")), str(event.get("Action"))
        identity = str((event.get("Actor") or {}).get("ID"))
        if kind == "service":
            self._services()
        elif action == "start":
            self._refresh(identity)
        elif action in ("die", "destroy"):
            self._over(identity)
        elif action == "rename":
            with self._lock:
                if identity in self._holders:
                    self._holders[identity].name = str(event["Actor"].get("Attributes", {}).get("name") or identity[:12])

    def on_resync(self, connection: Connection, containers: list[dict[str, Any]]) -> None:
        running = {str(one["Id"]) for one in containers if one.get("State") in ("running", "paused")}
        with self._lock:
            known = [identity for identity in self._holders if not identity.startswith((_BY_HAND, _SERVICE))]
        for identity in known:
            if identity not in running:
                self._over(identity)
        for one in containers:
            if str(one["Id"]) in running and any(port.get("PublicPort") for port in one.get("Ports") or []):
                self._refresh(str(one["Id"]))
        self._services(connection)

    def _over(self, identity: str) -> None:
        with self._lock:
            holder = self._holders.get(identity)
            if holder is None:
                return
            if holder.starting:
                holder.ended = True
                return
            del self._holders[identity]
        self._free(holder)

    def _refresh(self, identity: str) -> None:
        """Ask the engine, and hold what it says."""
        try:
            found = engine.call(self._connection(), "GET", f"/containers/{identity}/json")
        except EngineFailed:  # no such container
            self._over(identity)
            return
        except WherryError as error:
            log.info("a container's ports: %s", error.message)
            return
        if not (found.get("State") or {}).get("Running"):
            self._over(identity)
            return
        wanted, _ = bindings.of_container(found)
        self._hold(identity, str(found.get("Name") or "").lstrip("/"), wanted)

    def _services(self, connection: Connection | None = None) -> None:
        """Ports of the routing mesh; an engine that is no swarm answers 503."""
        try:
            found = engine.call(connection or self._connection(), "GET", "/services")
        except WherryError:
            found = []
        now = {f"{_SERVICE}{one['ID']}": one for one in found}
        with self._lock:
            gone = [identity for identity in self._holders if identity.startswith(_SERVICE) and identity not in now]
        for identity in gone:
            self._over(identity)
        for identity, one in now.items():
            self._hold(identity, str((one.get("Spec") or {}).get("Name")), bindings.of_service(one))

    # Forwards by hand

    def add(self, binding: Binding) -> None:
        """Raises Taken."""
        identity = f"{_BY_HAND}{binding.proto}:{binding.address}:{binding.port}"
        with self._lock:
            if identity in self._holders:
                return
            bound = self._bind(binding)
            holder = self._holders[identity] = Holder("")
            self._serve(holder, binding, bound)

    def expect(self, binding: Binding) -> None:
        """As `add`, but one that cannot be had now is tried again."""
        self._hold(f"{_BY_HAND}{binding.proto}:{binding.address}:{binding.port}", "", [binding])

    def remove(self, binding: Binding) -> None:
        self._over(f"{_BY_HAND}{binding.proto}:{binding.address}:{binding.port}")

    # For status

    def listing(self) -> list[dict[str, Any]]:
        """One entry for each port: container (empty: by hand), protocol, address, port, guest port, state in words."""
        with self._lock:
            entries = [
                _entry(holder.name, binding, address, state)
                for holder in self._holders.values()
                for binding, state in [*((port, "ok") for port in holder.ports), *holder.missing.items()]
                for address in sockets.addresses(binding, self._published)
            ]
        return sorted(entries, key=lambda entry: (entry["protocol"], entry["port"], entry["address"]))

    def used(self, proto: str) -> set[int]:
        """Ports of the guest that are published now."""
        with self._lock:
            return {
                binding.target[1] for holder in self._holders.values() for binding in [*holder.ports, *holder.missing]
                if binding.proto == proto
            }  # fmt: skip

    def close(self) -> None:
        """Free everything."""
        with self._lock:
            self._closed = True
            holders, self._holders = list(self._holders.values()), {}
            if self._timer is not None:
                self._timer.cancel()
        for holder in holders:
            self._free(holder)

    # Holding

    def _hold(self, identity: str, name: str, wanted: list[Binding]) -> None:
        """Hold exactly what is wanted, as far as it can be had; what cannot is tried again."""
        with self._lock:
            if self._closed or (not wanted and identity not in self._holders):
                return
            holder = self._holders.setdefault(identity, Holder(name))
            holder.name, holder.missing = name or holder.name, {}
            for binding in [held for held in holder.ports if held not in wanted]:
                self._forwarder.close(holder.ports.pop(binding))
            for binding in wanted:
                if binding in holder.ports:
                    continue
                try:
                    self._serve(holder, binding, self._bind(binding))
                except Taken as error:
                    holder.missing[binding] = f"taken by {error.owner}" if error.owner else "taken"
                    log.warning("%s", error.message)
            if holder.missing:
                self._retry_later()

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
                    self._hold(identity, holder.name, [*holder.ports, *holder.missing])

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

    def _free(self, holder: Holder) -> None:
        for port in holder.ports.values():
            self._forwarder.close(port)


_BY_HAND: Final = "hand:"
_SERVICE: Final = "service:"


def _entry(name: str, binding: Binding, address: str, state: str) -> dict[str, Any]:
    return {
        "container": name, "protocol": binding.proto, "address": address, "port": binding.port,
        "guest_port": binding.target[1], "state": state,
    }  # fmt: skip


def _nothing(_status: int) -> None: ...
