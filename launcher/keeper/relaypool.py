"""The keeper's end of a relay in the guest (iso/helpers/relay.c): channels that wait there for clients.

Nothing in the guest can connect to the keeper; so the keeper connects first, and lets a few channels wait. A client that comes
takes one without a round trip, and another is dialled in its place. Waiting costs a thread for each, and no traffic.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from launcher.errors import ConnectionLost
from launcher.keeper.link import Link
from launcher.keeper.proxy.client import ChannelClient, Client
from launcher.ssh.transport import Connection, close, receive

if TYPE_CHECKING:
    from paramiko import Channel

log = logging.getLogger("wherry.keeper.relay")

SPARE: Final = 4
# Between tries where no relay listens: one that starts is there within seconds, an older image has none.
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 16.0)


class RelayPool:
    """Keeps `spare` channels waiting at `path` on the link's connection; `serve` gets each client, in a thread of its own."""

    def __init__(
        self, link: Link, path: str, serve: Callable[[Client], None], *, spare: int = SPARE, pauses: tuple[float, ...] = _PAUSES
    ) -> None:
        self._path = path
        self._serve = serve
        self._spare = spare
        self._pauses = pauses
        self._changed = threading.Condition()  # for all below
        self._connection: Connection | None = None
        self._waiting: set[Channel] = set()
        self._served: set[Channel] = set()
        self._met: bool | None = None  # whether there is a relay; None while that is not known
        self._closed = False
        link.subscribe(self._on_up)

    def usable(self, seconds: float) -> bool:
        """Whether the guest has a relay to be met; waits at most so long for the first try."""
        with self._changed:
            self._changed.wait_for(lambda: self._met is not None or self._closed, seconds)
            return bool(self._met) and not self._closed

    def close(self) -> None:
        """No channel waits any more, and nobody is served."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            channels = [*self._waiting, *self._served]
        for channel in channels:
            close(channel)

    def _on_up(self, connection: Connection) -> None:
        """Keep channels waiting for as long as this is the connection."""
        with self._changed:
            self._connection, self._met = connection, None
            self._changed.notify_all()
        tries = 0
        while self._wants(connection):
            try:
                channel = connection.open_streamlocal(self._path)
            except ConnectionLost as error:
                if not connection.alive:
                    return
                # One that was there comes back: its own clients wait for us, and hear from it when that takes too long.
                lasting = self._know_missing(connection)
                if tries >= len(self._pauses) and not lasting:
                    log.warning("nobody is met at %s: %s", self._path, error.message)
                    return
                with self._changed:
                    pause = self._pauses[min(tries, len(self._pauses) - 1)]
                    self._changed.wait_for(lambda: not self._is_current(connection), pause)
                tries += 1
                continue
            tries = 0
            self._know_met(connection)
            self._let_wait(connection, channel)

    def _is_current(self, connection: Connection) -> bool:
        return connection is self._connection and not self._closed

    def _wants(self, connection: Connection) -> bool:
        """Wait until a channel is missing. False when the connection has a successor, or all is over."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_current(connection) or len(self._waiting) < self._spare)
            return self._is_current(connection)

    def _know_met(self, connection: Connection) -> None:
        with self._changed:
            if self._is_current(connection) and not self._met:
                self._met = True
                self._changed.notify_all()

    def _know_missing(self, connection: Connection) -> bool:
        """Whether there was one on this connection before."""
        with self._changed:
            if self._is_current(connection) and self._met is None:
                self._met = False
                self._changed.notify_all()
            return bool(self._met)

    def _let_wait(self, connection: Connection, channel: Channel) -> None:
        with self._changed:
            if not self._is_current(connection):
                close(channel)
                return
            self._waiting.add(channel)
        threading.Thread(target=self._wait, args=(channel,), name="relay-waits", daemon=True).start()

    def _wait(self, channel: Channel) -> None:
        first = receive(channel.recv)
        with self._changed:
            self._waiting.discard(channel)
            if first:
                self._served.add(channel)
            closed = self._closed
            self._changed.notify_all()
        try:
            if first and not closed:
                self._serve(ChannelClient(channel, first))
        except Exception:  # one client's failure is not the others'
            log.exception("a client in the machine")
        finally:
            close(channel)
            with self._changed:
                self._served.discard(channel)
