"""An engine without dockerd: a real HTTP server on a unix socket, written with the standard library's own reader of HTTP."""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

PIECE = bytes(range(256)) * 128


class Seen(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Engine(socketserver.ThreadingUnixStreamServer):
    """What came is in `seen`; `gone` counts silent requests whose client ended."""

    daemon_threads = True
    request_queue_size = 500

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.path = path
        self.seen: list[Seen] = []
        self.gone = 0
        self.accepted = 0
        self.reading = threading.Event()  # POST /slow reads its body when this is set
        self.changed = threading.Condition()

    def get_request(self) -> Any:
        found = super().get_request()
        self.note(lambda: setattr(self, "accepted", self.accepted + 1))
        return found

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go as they like."""

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 30)

    def note(self, work: Callable[[], None]) -> None:
        with self.changed:
            work()
            self.changed.notify_all()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Engine  # type: ignore[assignment]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            assert self.rfile.readline() == b"\r\n"
        while self.rfile.readline().strip():
            pass
        return body

    def _say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.server.note(lambda: self.server.seen.append(Seen(self.command, self.path, dict(self.headers), b"")))
        count = int(parse_qs(url.query).get("n", ["0"])[0])
        if url.path == "/chunked":
            self._chunked(count)
        elif url.path == "/silent":
            self._silent()
        elif url.path == "/dropped":
            self.close_connection = True
        elif url.path == "/late":
            self.server.reading.wait(30)
        elif url.path == "/empty":
            self.send_response(204)
            self.end_headers()
        else:
            self._say(200, b"OK " + self.path.encode())

    def _chunked(self, count: int) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while count > 0:
            piece = PIECE[: min(count, len(PIECE))]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            count -= len(piece)
        self.wfile.write(b"0\r\n\r\n")

    def _silent(self) -> None:
        """As `logs -f` of a container that says nothing: it is over when the client ends."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        self.rfile.read(1)
        self.server.note(lambda: setattr(self.server, "gone", self.server.gone + 1))
        self.close_connection = True

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/slow":
            self.server.reading.wait(30)
        if url.path == "/count":
            self._count()
            return
        body = self._body()
        self.server.note(lambda: self.server.seen.append(Seen(self.command, self.path, dict(self.headers), body)))
        if url.path.endswith("/attach"):
            self._attach()
        elif url.path.endswith("/containers/create"):
            self._say(201, b'{"Id":"abc"}', Content_Type="application/json")
        else:
            self._say(200, b"%d" % len(body))

    def _count(self) -> None:
        """As `load`: takes what comes and keeps none of it."""
        total = 0
        while size := int(self.rfile.readline().split(b";")[0], 16):
            total += size
            while size:
                size -= len(self.rfile.read(min(size, 65536)))
            self.rfile.readline()
        self.rfile.readline()
        self._say(200, b"%d" % total)

    def _attach(self) -> None:
        """Echoes what comes, and says good-bye when the input has ended: with an upgrade or, as old clients do it, without."""
        if self.headers.get("Upgrade"):
            self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        else:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n")
        while data := self.rfile.read1(65536):
            self.wfile.write(data)
        if "deaf" in self.path:  # a container whose input nobody reads goes on
            self.server.reading.wait(60)
        self.wfile.write(b"bye")
        self.server.note(lambda: setattr(self.server, "gone", self.server.gone + 1))
        self.close_connection = True


@contextlib.contextmanager
def engine(path: Path) -> Iterator[Engine]:
    made = Engine(path)
    thread = threading.Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.socket.shutdown(socket.SHUT_RDWR)
        made.socket.close()
