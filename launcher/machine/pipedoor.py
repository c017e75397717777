"""The engine's pipe of a machine that is off, on Windows, where nothing that listens can be handed on.

Who comes is held until the machine runs, then led to the keeper's own pipe, which has the same name: from then on we only carry
bytes, as long as these first clients stay. The keeper listens beside us (host.streams, `beside`), so nobody finds the name
without a listener.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from pathlib import Path
from typing import Final

from launcher import host
from launcher.host.streams import Stream
from launcher.machine.stop import running
from launcher.store import MachineDir

log = logging.getLogger("wherry.doorman")

_BACKLOG: Final = 16
_CHUNK: Final = 64 << 10
_CONNECTS_WITHIN: Final = 60.0
_LOOKS_EVERY: Final = 5.0  # seconds: whether somebody else started the machine, or it is gone


class PipeDoor:
    """Listens from the beginning on. As `doorman.Door`, but for what is handed on."""

    sockets: tuple[socket.socket, ...] = ()  # a pipe is not handed on

    def __init__(self, path: Path) -> None:
        """Raises OSError when another program has the name."""
        self._path = path
        self._listening = host.current().endpoints().listen(path, _BACKLOG)
        self._asked = threading.Event()
        self._decided = threading.Event()
        self._why = ""
        self._passed_on = False
        threading.Thread(target=self._accept, name="door", daemon=True).start()

    def wait(self, directory: MachineDir) -> bool:
        """Until a client asks for something; False when that is no concern of ours any more."""
        while directory.exists():
            asked = self._asked.wait(_LOOKS_EVERY)
            if running(directory):
                self._passed_on = True
                return False
            if asked:
                return True
        return False

    def close(self, *, passed_on: bool, why: str = "") -> None:
        """Listen no more, and lead on who has come when the machine runs; `why` it does not."""
        self._passed_on = self._passed_on or passed_on
        self._why = why or self._why
        self._listening.close()
        self._decided.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client = self._listening.accept()
                # Not a daemon: as long as one is served, this process stays.
                threading.Thread(target=self._serve, args=(client,), name="door-client").start()

    def _serve(self, client: Stream) -> None:
        try:
            # Who only looks whether somebody listens needs no machine.
            if first := client.recv(_CHUNK):
                self._asked.set()
                self._decided.wait()
                self._lead(client, first)
        except OSError as error:
            log.info("a client's connection has broken: %s", error)
        finally:
            client.close()

    def _lead(self, client: Stream, first: bytes) -> None:
        if self._why:
            client.sendall(_refusal(self._why))
            client.shutdown(socket.SHUT_WR)
        elif self._passed_on:
            keeper = host.current().endpoints().connect(self._path, _CONNECTS_WITHIN)
            try:
                keeper.sendall(first)
                back = threading.Thread(target=_carry, args=(keeper, client), name="door-back")
                back.start()
                _carry(client, keeper)
                back.join()
            finally:
                keeper.close()


def _carry(source: Stream, target: Stream) -> None:
    """All that comes, to its end, which is passed on."""
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # the other carrier is to hear of it
        for stream in (source, target):
            stream.shutdown(socket.SHUT_RDWR)


def _refusal(why: str) -> bytes:
    """As the engine says that something failed."""
    body = json.dumps({"message": why}).encode()
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode("ascii") + b"Connection: close\r\n\r\n" + body
