"""The engine's events over a real SSH connection, from an engine that also says what cannot be understood."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import NotRunning
from launcher.keeper import events as module
from launcher.keeper.events import Event, Events
from launcher.keeper.link import Link
from launcher.ssh.transport import Connection
from tests.guestserver import guest
from tests.loopback import until


class Engine(socketserver.ThreadingUnixStreamServer):
    """Each stream of events is the next of `lines`, and ends with it; the last one stays open until the engine is closed."""

    daemon_threads = True

    def __init__(self, path: Path, lines: list[bytes]) -> None:
        super().__init__(str(path), Handler)
        self.lines = lines
        self.containers: list[dict[str, Any]] = []
        self.over = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go as they like."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Engine  # type: ignore[assignment]

    def log_message(self, *_: Any) -> None:
        """Silent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.path.startswith("/events"):
            self._piece(self.server.lines.pop(0) + b"\n")
            if not self.server.lines:
                self.server.over.wait(60)
        else:
            self._piece(json.dumps(self.server.containers).encode())
        self._piece(b"")

    def _piece(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.resyncs: list[list[dict[str, Any]]] = []
        self.lost: list[str] = []
        self.following = Events(self.lost.append)
        self.following.subscribe(self.events.append, self._resync)
        self.begin: Callable[[], Connection]

    def _resync(self, _connection: Connection, containers: list[dict[str, Any]]) -> None:
        self.resyncs.append(containers)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path / "engine.sock", [])
    thread = threading.Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.over.set()
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def heard(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    monkeypatch.setattr(module, "_AGAIN", (0.01,))
    made = Heard()
    with guest(tmp_path) as server:
        server.engine = Path(str(engine.server_address))
        link = Link(server.connect)
        link.subscribe(made.following.connected)
        made.begin = link.get
        yield made
        made.following.close()
        link.drop()
        engine.over.set()
        until(lambda: "link-up" not in [thread.name for thread in threading.enumerate()])


def test_what_cannot_be_understood_is_followed_by_the_next(engine: Engine, heard: Heard) -> None:
    engine.lines[:] = [b"this is no JSON", b'{"Action": "start"}']
    heard.begin()
    until(lambda: heard.events == [{"Action": "start"}])
    assert len(heard.resyncs) == 2
    assert len(heard.lost) == 1 and "cannot be understood" in heard.lost[0]


def test_a_look_compares_all_containers_once_more(engine: Engine, heard: Heard) -> None:
    with pytest.raises(NotRunning):
        heard.following.look()
    engine.lines[:] = [b'{"Action": "start"}']
    heard.begin()
    until(lambda: len(heard.events) == 1)
    engine.containers = [{"Id": "a"}]
    assert heard.following.look() == "containers compared"
    assert heard.resyncs == [[], [{"Id": "a"}]]
