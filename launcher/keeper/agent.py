"""The ssh agent of this computer, for containers (ssh_agent = true): each client of the guest's relay is joined with it.

Which one that is changes: each login of ours, each terminal may have its own. Every command tells the keeper of the one in its
environment; the newest that answers is taken when a container connects, so that a container keeps its bind whatever ends here.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from launcher import host
from launcher.keeper.proxy.client import Client

log = logging.getLogger("wherry.keeper.agent")

CHANNELS: Final = "/run/wherry/agent.keeper"  # where the keeper meets containers
_KEPT: Final = 8
_CHUNK: Final = 64 << 10
_ANSWERS_WITHIN: Final = 5.0


class Agents:
    """Safe to use from many threads. `environment` names the first one, if any."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._known: list[str] = []  # the newest first
        self._lock = threading.Lock()
        self.learn(host.current().ssh_agent(environment))

    def learn(self, address: str | None) -> None:
        """A command was called where this is the agent."""
        if not address or not Path(address).is_absolute():
            return
        with self._lock:
            self._known = [address, *(other for other in self._known if other != address)][:_KEPT]

    def addresses(self) -> list[str]:
        with self._lock:
            return list(self._known)

    def serve(self, client: Client) -> None:
        """One client to its end. Without an agent that answers it is closed at once, as by an agent that is gone."""
        stream = self._dial()
        if stream is None:
            return
        asking = threading.Thread(target=_pass_on, args=(client, stream), name="agent-up", daemon=True)
        asking.start()
        try:
            while data := stream.recv(_CHUNK):
                client.sendall(data)
        except OSError as error:
            log.debug("a client of the ssh agent: %s", error)
        finally:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            asking.join()
            stream.close()

    def _dial(self) -> socket.socket | None:
        known = self.addresses()
        for address in known:
            stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                stream.settimeout(_ANSWERS_WITHIN)
                stream.connect(address)
                stream.settimeout(None)  # who is asked to confirm the use of a key takes their time
                return stream
            except OSError as error:
                stream.close()
                log.info("the ssh agent at %s: %s", address, error)
        log.warning("a container asks for the ssh agent, and there is none%s", " that answers" if known else "")
        return None


def _pass_on(client: Client, stream: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(_CHUNK):
            stream.sendall(data)
    # Also when the client is gone altogether: then the agent has nobody to answer, and ends.
    with contextlib.suppress(OSError):
        stream.shutdown(socket.SHUT_WR)
