"""What running containers have bound of the shares: only there are changes on this computer worth telling."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from launcher.errors import WherryError
from launcher.keeper import engine
from launcher.keeper.events import Event, Events
from launcher.sharing import Share
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper.shares")

_SECONDS: Final = 30.0


class Bound:
    """Follows the engine's events. `tell` hears, by share, the folders in it, whenever they are others than before."""

    def __init__(
        self,
        events: Events,
        connection: Callable[[], Connection],
        shares: Callable[[], Sequence[Share]],
        tell: Callable[[Mapping[str, Sequence[str]]], None],
    ) -> None:
        self._connection = connection
        self._shares = shares
        self._tell = tell
        self._lock = threading.Lock()
        self._sources: dict[str, list[str]] = {}  # container: bind sources, as the guest has them
        self._told: dict[str, list[str]] = {}
        events.subscribe(self._on_event, self._on_resync)

    def again(self) -> None:
        """The shares are others now."""
        with self._lock:
            found = places(self._shares(), [source for sources in self._sources.values() for source in sources])
            if found == self._told:
                return
            self._told = found
        self._tell(found)

    def _on_event(self, event: Event) -> None:
        container = event.get("Actor", {}).get("ID", "")
        action = event.get("Action", "")
        if event.get("Type") != "container" or action not in ("start", "die", "destroy"):
            return
        sources: list[str] = []
        if action == "start":
            try:
                sources = _sources(engine.call(self._connection(), "GET", f"/containers/{container}/json", timeout=_SECONDS))
            except WherryError as error:  # it is gone again
                log.info("what %s has bound: %s", container[:12], error.message)
        with self._lock:
            self._sources.pop(container, None)
            if sources:
                self._sources[container] = sources
        self.again()

    def _on_resync(self, _connection: Connection, containers: list[dict[str, Any]]) -> None:
        running = {
            found["Id"]: _sources(found) for found in containers if found.get("State") in ("running", "paused", "restarting")
        }
        with self._lock:
            self._sources = {container: sources for container, sources in running.items() if sources}
        self.again()


def _sources(container: dict[str, Any]) -> list[str]:
    """Of an answer about one container, the short one and the long one."""
    return [mount["Source"] for mount in container.get("Mounts") or [] if mount.get("Type") == "bind" and mount.get("Source")]


def places(shares: Sequence[Share], sources: Sequence[str]) -> dict[str, list[str]]:
    """By the id of each share that is mounted itself, the folders in it that these paths of the guest are, sorted."""
    found: dict[str, set[str]] = {}
    for share in shares:
        for top in (share.guest, *share.aliases) if not share.inside else ():
            for source in sources:
                if source == top or source.startswith(top.rstrip("/") + "/"):
                    found.setdefault(share.id, set()).add(source[len(top.rstrip("/")) :] or "/")
    return {name: sorted(folders) for name, folders in sorted(found.items())}
