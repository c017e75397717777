"""What happens in the engine: its event stream, and all of its containers whenever something may have been missed.

The stream is opened before the containers are listed, so nothing falls between. It ends with the SSH connection or with the
engine: then it is opened anew, and everything is listed again.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import quote

from launcher.errors import NotRunning, WherryError
from launcher.keeper import engine
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper.events")

Event = dict[str, Any]
# Others come often (exec_start of health checks) and nobody of us wants them.
FILTERS: Final = {
    "type": ["container", "service", "image", "volume", "builder"],
    "event": [
        "create", "start", "die", "destroy", "rename", "pause", "unpause", "update", "remove", "oom", "delete", "prune",
    ],
}  # fmt: skip
_AGAIN: Final = (0.2, 1.0, 5.0)  # seconds before the stream is opened again, while the engine does not answer


class Events:
    """One subscriber's function is called at a time. Begin with `link.subscribe(events.connected)`."""

    def __init__(self, on_lost: Callable[[str], None] = lambda _why: None) -> None:
        """`on_lost` hears why the stream ended while the connection is there: the engine has ended, or starts anew."""
        self._on_lost = on_lost
        self._subscribers: list[tuple[Callable[[Event], None], Callable[[Connection, list[dict[str, Any]]], None]]] = []
        self._now: Connection | None = None
        self._following = threading.Lock()
        self._telling = threading.Lock()
        self._closed = threading.Event()

    def subscribe(
        self, on_event: Callable[[Event], None], on_resync: Callable[[Connection, list[dict[str, Any]]], None]
    ) -> None:
        """`on_event` gets the engine's own object: Type, Action, Actor.ID and Actor.Attributes. `on_resync` gets the answer of
        GET /containers/json?all=1; what it knew before and does not find there is gone."""
        self._subscribers.append((on_event, on_resync))

    def connected(self, connection: Connection) -> None:
        """Follow the engine on this connection until that ends."""
        self._now = connection
        with self._following:  # the thread of the connection before has not noticed its end yet
            failures = 0
            while self._current(connection):
                try:
                    self._follow(connection)
                    failures, why = 0, "its stream of events ended"
                except WherryError as error:
                    failures, why = failures + 1, error.message.rstrip(".")
                except Exception as error:  # an answer that is none: the next one may be
                    log.exception("the engine's events")
                    failures, why = failures + 1, f"its events cannot be understood: {error!r}"
                if self._current(connection):
                    log.info("the engine's events: %s", why)
                    _guarded(self._on_lost, why)
                # An engine that restarts says nothing for a while; the stream's end was the sign.
                self._closed.wait(_AGAIN[min(failures, len(_AGAIN) - 1)])

    def look(self) -> str:
        """Compare all containers with what the subscribers know, events or none; says so, for `Healer.check`. Raises
        WherryError when that cannot be now."""
        connection = self._now
        if connection is None:
            raise NotRunning("the engine's events are not followed yet.")
        self._resync(connection)
        return "containers compared"

    def close(self) -> None:
        self._closed.set()

    def _current(self, connection: Connection) -> bool:
        return connection is self._now and connection.alive and not self._closed.is_set()

    def _follow(self, connection: Connection) -> None:
        path = f"/events?filters={quote(json.dumps(FILTERS))}"
        with engine.stream(connection, path) as lines:
            self._resync(connection)
            for event in _objects(lines):
                with self._telling:
                    for on_event, _ in self._subscribers:
                        _guarded(on_event, event)

    def _resync(self, connection: Connection) -> None:
        with self._telling:  # what happens meanwhile is told after it
            containers = engine.call(connection, "GET", "/containers/json?all=1")
            for _, on_resync in self._subscribers:
                _guarded(on_resync, connection, containers)


def _objects(pieces: Iterator[bytes]) -> Iterator[Event]:
    pending = b""
    for piece in pieces:
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _guarded(function: Callable[..., None], *arguments: Any) -> None:
    try:
        function(*arguments)
    except Exception:  # one part's trouble is not the other's
        log.exception("after an event of the engine")
