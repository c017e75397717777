"""The exec part of a keeper: the control socket with launcher.keeper.sessions behind it."""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from launcher import host
from launcher.control import Framed
from launcher.errors import WherryError
from launcher.host.streams import Stream
from launcher.keeper.sessions import serve_exec
from launcher.keeper.slots import StartSlots
from launcher.ssh.transport import Connection, Prepared


class Keeper:
    def __init__(self, path: Path, connection: Connection, slots: StartSlots) -> None:
        self.path = path
        self.connection = connection
        self.slots = slots
        self.requests: list[dict[str, object]] = []
        self._threads: list[threading.Thread] = []
        self._streams: list[Stream] = []
        self._listening = host.current().endpoints().listen(path, 100)
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def close(self) -> None:
        self._listening.close()
        self._accepting.join()
        self.connection.close()
        for thread in self._threads:
            thread.join()

    def die(self) -> None:
        """What a client sees when the keeper is killed."""
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def open(self, make: Callable[[Connection], Prepared]) -> Prepared:
        return make(self.connection)

    def _accept(self) -> None:
        while True:
            try:
                stream = self._listening.accept()
            except OSError:
                return
            self._streams.append(stream)
            self._threads.append(threading.Thread(target=self._serve, args=(Framed(stream),)))
            self._threads[-1].start()

    def _serve(self, framed: Framed) -> None:
        try:
            frame = framed.receive()
            assert frame is not None
            self.requests.append(json.loads(frame[1]))
            serve_exec(framed, self.requests[-1], self, self.slots)
        except WherryError as error:
            with contextlib.suppress(OSError):
                framed.send_json({"ok": False, "error": error.to_json()})
        finally:
            framed.close()


@contextlib.contextmanager
def keeper(connection: Connection, slots: StartSlots | None = None) -> Iterator[Keeper]:
    """A keeper whose sessions have all ended after the test. In a short folder: a socket's path must fit 104 bytes."""
    with tempfile.TemporaryDirectory(prefix="wherry-") as folder:
        made = Keeper(host.current().endpoints().path(Path(folder), "test", "control"), connection, slots or StartSlots(4))
        try:
            yield made
        finally:
            made.close()
