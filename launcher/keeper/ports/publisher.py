"""Ports of containers and services: held before a start goes to the engine, freed when the engine says that it is over.

What was bound for a start request is kept while that is under way, whatever the events say meanwhile; then the engine's word
counts. Events may come late: an end that is heard before the start of which a client knows is no reason to free anything.
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
from launcher.keeper.ports.turns import Turns
from launcher.keeper.proxy.refusal import Refusal
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.ports")

_STARTED: Final = (204, 304)  # 304: it ran already
_CREATED: Final = 201
_GONE: Final = 404
_UNAVAILABLE: Final = 503
# Not one of a worker, nor one of a manager that is being prepared, whose words begin as this one's do.
_IN_NO_SWARM: Final = 'Use "docker swarm init"'
_OF_SERVICE: Final = "com.docker.swarm.service.id"
BY_HAND: Final = "hand:"
_SERVICE: Final = "service:"


class Publisher:
    """`before_start` and what it returns are called by many threads, the functions for events by one."""

    def __init__(self, connection: Callable[[], Connection], holders: Holders, aliases: Aliases) -> None:
        self._connection = connection
        self._holders = holders
        self._aliases = aliases
        self._asking = Turns()  # who asked the engine first must not have the last word

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

    def before_start(
        self, reference: str, *, restart: bool = False, check: Callable[[dict[str, Any]], None] = lambda _found: None
    ) -> Callable[[int], None]:
        """Bind all that a container publishes, when `check` of its description raises no Refusal. What is returned is to be
        told the status of the engine's answer, 0 for none.

        Raises WherryError, mostly Taken; nothing is bound then, and a container that never ran and was to be removed at its end
        is removed. A start of one that runs passes, which the engine answers by 304. What else is wrong the engine will say.
        """
        try:
            connection = self._connection()
            found = engine.call(connection, "GET", f"/containers/{quote(reference, safe='')}/json")
        except WherryError:
            return _nothing
        identity = str(found["Id"])
        wanted = bindings.of_container(found, self._aliases)
        state = found.get("State") or {}
        for other in self._holders.in_the_way(identity, wanted):
            self._check(other)
        try:
            check(found)
            self._holders.begin(identity, _name(found), wanted)
        except (WherryError, Refusal):
            if state.get("Running") and not restart:
                return _nothing
            if state.get("Status") == "created" and (found.get("HostConfig") or {}).get("AutoRemove"):
                _remove(connection, identity)
            raise
        return lambda status: self._settle(identity, status)

    def _check(self, identity: str) -> None:
        """Whether it is over already, of which the event may still be to come."""
        if identity.startswith(_SERVICE):
            self._services(self._connection)
        elif not identity.startswith(BY_HAND):
            self._refresh(identity)

    def _settle(self, identity: str, status: int) -> None:
        if not self._holders.settle(identity, started=status in _STARTED):
            # It did not start, or has ended again, or nobody knows: the engine does.
            self._refresh(identity)

    def on_event(self, event: Event) -> None:
        action = str(event.get("Action"))
        actor = event.get("Actor") or {}
        identity, attributes = str(actor.get("ID")), actor.get("Attributes") or {}
        if event.get("Type") == "service":
            self._services(self._connection)
            return
        if action == "start":
            self._holders.heard(identity)
            self._refresh(identity)
        elif action == "die":
            self._ended(identity)
        elif action == "destroy":
            with self._asking.of(identity):
                self._holders.removed(identity)
        elif action == "rename":
            self._holders.rename(identity, str(attributes.get("name") or identity[:12]))
        # Who leaves a swarm hears of its tasks alone.
        if attributes.get(_OF_SERVICE) and action in ("start", "die", "destroy"):
            self._services(self._connection)

    def on_resync(self, connection: Connection, containers: list[dict[str, Any]]) -> None:
        running = [str(one["Id"]) for one in containers if one.get("State") in ("running", "paused") and _published(one)]
        held = [identity for identity in self._holders.known() if not identity.startswith((BY_HAND, _SERVICE))]
        for identity in dict.fromkeys([*held, *running]):  # what is not in the list may have been started since
            self._refresh(identity)
        self._services(lambda: connection)

    def _ended(self, identity: str) -> None:
        with self._asking.of(identity):
            certain = self._holders.ended(identity)
        if not certain:
            self._refresh(identity)

    def _refresh(self, identity: str) -> None:
        """Ask the engine, and hold what it says."""
        with self._asking.of(identity):
            while True:
                stage = self._holders.stage(identity)
                try:
                    found = self._running(identity)
                except WherryError as error:  # the next connection brings a resync
                    log.info("a container's ports: %s", error.message)
                    return
                if found is not None:
                    self._holders.hold(identity, _name(found), bindings.of_container(found, self._aliases))
                    return
                if self._holders.free(identity, stage):
                    return

    def _running(self, identity: str) -> dict[str, Any] | None:
        """What the engine says of a container; None when it does not run, or is gone. Raises EngineFailed, ConnectionLost."""
        try:
            found: dict[str, Any] = engine.call(self._connection(), "GET", f"/containers/{identity}/json")
        except EngineFailed as error:
            if error.status == _GONE:
                return None
            raise
        state = found.get("State") or {}
        # While the engine waits with a restart it says that the container runs; its ports are free, and the start is an event.
        return found if state.get("Running") and not state.get("Restarting") else None

    def _services(self, connection: Callable[[], Connection]) -> None:
        """Ports of the routing mesh. What cannot be told now, as while managers elect, is asked again at the next event."""
        with self._asking.of(_SERVICE):
            self._hold_services(connection)

    def _hold_services(self, connection: Callable[[], Connection]) -> None:
        try:
            found = engine.call(connection(), "GET", "/services")
        except WherryError as error:
            if not (isinstance(error, EngineFailed) and error.status == _UNAVAILABLE and _IN_NO_SWARM in error.message):
                log.info("ports of services: %s", error.message)
                return
            found = []
        now = {f"{_SERVICE}{one['ID']}": one for one in found}
        for identity in self._holders.known():
            if identity.startswith(_SERVICE) and identity not in now:
                self._holders.free(identity)
        for identity, one in now.items():
            self._holders.hold(identity, str((one.get("Spec") or {}).get("Name")), bindings.of_service(one))


def _name(found: dict[str, Any]) -> str:
    return str(found.get("Name") or "").lstrip("/") or str(found["Id"])[:12]


def _published(listed: dict[str, Any]) -> bool:
    return any(port.get("PublicPort") for port in listed.get("Ports") or [])


def _remove(connection: Connection, identity: str) -> None:
    """As `docker run --rm` would have had it: the client waits for the removal, and would for ever. Not by force: one that
    runs by now goes on."""
    try:
        engine.call(connection, "DELETE", f"/containers/{identity}?v=1")
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
