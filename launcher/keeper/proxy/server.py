"""The engine's socket of one machine."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from launcher import host
from launcher.errors import WherryError
from launcher.keeper.engine import SOCKET
from launcher.keeper.listener import Listener
from launcher.keeper.proxy.client import Client, SocketClient
from launcher.keeper.proxy.create import Rules
from launcher.keeper.proxy.folders import Folders
from launcher.keeper.proxy.paths import clean
from launcher.keeper.proxy.published import Ports
from launcher.keeper.proxy.relay import Relay
from launcher.ssh.transport import Connection
from launcher.store import MachineDir

if TYPE_CHECKING:
    from paramiko import Channel

GUEST: Final = "/run/wherry/engine.sock"  # where clients in the machine connect
GUEST_CHANNELS: Final = "/run/wherry/engine.keeper"  # and where the keeper meets them

# A start says itself when it makes no progress; this is for one that never ends.
_START_SECONDS: Final = 600.0


class Keeper(Protocol):
    """As much of the supervisor as the proxy asks for."""

    directory: MachineDir

    def wait_ready(self, seconds: float | None = None) -> None: ...
    def open(self, make: Callable[[Connection], Channel]) -> Channel: ...


class EngineProxy:
    """Serves one machine. `start` listens before it returns; clients that come while the machine starts wait."""

    def __init__(
        self, keeper: Keeper, ports: Ports | None = None, agents: Callable[[], list[str] | None] = lambda: None,
        folders: Folders | None = None, door: Sequence[socket.socket] = (),
    ) -> None:  # fmt: skip
        """`door`: the engine's socket, where clients wait for us already, and clients."""
        self._keeper = keeper
        self._ports = ports
        path = keeper.directory.engine_socket
        sockets = frozenset({clean(str(path)), clean(host.current().real_path(str(path))), GUEST})
        self._rules = Rules(sockets, folders or Folders(), agents)
        # On Windows the doorman of a login listens there until the machine runs (machine/pipedoor.py).
        self._listener = Listener(path, lambda stream: self.serve(SocketClient(stream)), "engine", door, beside=True)
        self._relays: set[Relay] = set()
        self._requests = 0
        self._closed = False
        self._changed = threading.Condition()  # for the three above

    def start(self) -> None:
        """Raises WherryError when the socket cannot be made."""
        self._listener.start()

    def close(self) -> None:
        """End every connection."""
        self._listener.close()
        with self._changed:
            self._closed = True
            for relay in self._relays:
                relay.hang_up()

    def working(self) -> int:
        """How many connections carry what would be lost if this process ended."""
        with self._changed:
            return sum(relay.working for relay in self._relays)

    def uses(self) -> tuple[int, int]:
        """Requests under way, and how many there ever were."""
        with self._changed:
            return sum(relay.under_way for relay in self._relays), self._requests

    def _begun(self) -> None:
        """A request; what it needs is told by `_dial`."""
        with self._changed:
            self._requests += 1
        with contextlib.suppress(WherryError):
            self._keeper.wait_ready(_START_SECONDS)

    def serve(self, client: Client) -> None:
        """One client, here or in the machine, to its end."""
        relay = Relay(client, self._dial, self._rules, self._ports, self._begun)
        with self._changed:
            self._relays.add(relay)
            if self._closed:
                relay.hang_up()
        try:
            relay.serve()
        finally:
            with self._changed:
                self._relays.discard(relay)

    def _dial(self) -> Channel:
        self._keeper.wait_ready(_START_SECONDS)
        return self._keeper.open(lambda connection: connection.open_streamlocal(SOCKET))
