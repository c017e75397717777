"""Ports of containers and services: held before a start goes to the engine, freed when the engine says that it is over.

What was bound for a start request is kept while that is under way, whatever the events say meanwhile; then the engine's word
counts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from launcher.errors import EngineFailed, WherryError
from launcher.keeper import engine
from launcher.keeper.events import Event
from launcher.keeper.ports import bindings
from launcher.keeper.ports import plan as planning
from launcher.keeper.ports import shown as showing
from launcher.keeper.ports.aliases import Aliases
from launcher.keeper.ports.holders import Holders
from launcher.keeper.ports.sockets import Taken
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.ports")

_STARTED: Final = (204, 304)  # 304: it ran already
_CREATED: Final = 201
BY_HAND: Final = "hand:"
_SERVICE: Final = "service:"


class Publisher:
    """`before_start` is called by many threads, the functions for events by one."""

    def __init__(self, connection: Callable[[], Connection], holders: Holders, aliases: Aliases) -> None:
        self._connection = connection
        self._holders = holders
        self._aliases = aliases

    def before_create(
        self, settings: dict[str, Any], image: str, exposed: list[str]
    ) -> tuple[bool, Callable[[int, bytes], None]]:
        """Choose ports in a HostConfig where the user named none. `exposed` is what the request adds to the image's own.

        Whether it changed; and what is to be told the engine's answer, status 0 for none. Raises WherryError.
        """
        plan = planning.of(settings, lambda: dict.fromkeys([*exposed, *self._exposed(image)]))
        if not plan.wishes:
            return plan.write(self._aliases), _untold
        reservation = self._holders.reserve(plan.wishes)
        try:
            plan.write(self._aliases)
        except BaseException:
            self._holders.created(reservation, "")
            raise
        return True, lambda status, body: self._holders.created(reservation, _made(status, body))

    def _exposed(self, image: str) -> list[str]:
        """What the image says; the engine says itself that there is none."""
        try:
            found = engine.call(self._connection(), "GET", f"/images/{quote(image)}/json")
        except WherryError:
            return []
        return list((found.get("Config") or {}).get("ExposedPorts") or {})

    def shown(self, body: bytes) -> bytes:
        """An answer about containers with ports as the user asked for them."""
        return showing.restore(body, self._aliases, self._holders.moved, any_moved=self._holders.any_moved())

    def before_start(self, reference: str) -> Callable[[int], None]:
        """Bind all that a container publishes. What is returned is to be told the status of the engine's answer, 0 for none.

        Raises Taken; nothing is bound then, and a container that was to be removed at its end is removed. What else is wrong
        the engine will say.
        """
        try:
            connection = self._connection()
            found = engine.call(connection, "GET", f"/containers/{reference}/json")
        except WherryError:
            return _nothing
        identity = str(found["Id"])
        wanted = bindings.of_container(found, self._aliases)
        try:
            self._holders.begin(identity, _name(found), wanted)
        except Taken:
            if (found.get("HostConfig") or {}).get("AutoRemove"):
                _remove(connection, identity)
            raise
        return lambda status: self._settle(identity, status)

    def _settle(self, identity: str, status: int) -> None:
        if not self._holders.settle(identity, started=status in _STARTED):
            # It did not start, or has ended again, or nobody knows: the engine does.
            self._refresh(identity)

    def on_event(self, event: Event) -> None:
        action = str(event.get("Action"))
        actor = event.get("Actor") or {}
        identity = str(actor.get("ID"))
        if event.get("Type") == "service":
            self._services(self._connection)
        elif action == "start":
            self._refresh(identity)
        elif action == "die":
            self._holders.free(identity)
        elif action == "destroy":
            self._holders.removed(identity)
        elif action == "rename":
            self._holders.rename(identity, str((actor.get("Attributes") or {}).get("name") or identity[:12]))

    def on_resync(self, connection: Connection, containers: list[dict[str, Any]]) -> None:
        running = {str(one["Id"]) for one in containers if one.get("State") in ("running", "paused")}
        for identity in self._holders.known():
            if not identity.startswith((BY_HAND, _SERVICE)) and identity not in running:
                self._holders.free(identity)
        for one in containers:
            if str(one["Id"]) in running and any(port.get("PublicPort") for port in one.get("Ports") or []):
                self._refresh(str(one["Id"]))
        self._services(lambda: connection)

    def _refresh(self, identity: str) -> None:
        """Ask the engine, and hold what it says."""
        try:
            found = engine.call(self._connection(), "GET", f"/containers/{identity}/json")
        except EngineFailed:  # no such container
            self._holders.free(identity)
            return
        except WherryError as error:  # the next connection brings a resync
            log.info("a container's ports: %s", error.message)
            return
        if not (found.get("State") or {}).get("Running"):
            self._holders.free(identity)
            return
        wanted = bindings.of_container(found, self._aliases)
        self._holders.hold(identity, _name(found), wanted)

    def _services(self, connection: Callable[[], Connection]) -> None:
        """Ports of the routing mesh; an engine that is in no swarm answers 503."""
        try:
            found = engine.call(connection(), "GET", "/services")
        except EngineFailed:
            found = []
        except WherryError:
            return
        now = {f"{_SERVICE}{one['ID']}": one for one in found}
        for identity in self._holders.known():
            if identity.startswith(_SERVICE) and identity not in now:
                self._holders.free(identity)
        for identity, one in now.items():
            self._holders.hold(identity, str((one.get("Spec") or {}).get("Name")), bindings.of_service(one))


def _name(found: dict[str, Any]) -> str:
    return str(found.get("Name") or "").lstrip("/") or str(found["Id"])[:12]


def _remove(connection: Connection, identity: str) -> None:
    """As `docker run --rm` would have had it: the client waits for the removal, and would for ever."""
    try:
        engine.call(connection, "DELETE", f"/containers/{identity}?v=1&force=1")
    except WherryError as error:
        log.warning("a container that was not started stays: %s", error.message)


def _made(status: int, body: bytes) -> str:
    """The id of the container that was created; empty when none was."""
    try:
        return str(json.loads(body)["Id"]) if status == _CREATED else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _nothing(_status: int) -> None: ...


def _untold(_status: int, _body: bytes) -> None: ...
