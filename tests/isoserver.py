"""A web server that misbehaves on purpose: one thread per connection, one request on each, every byte ours."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

ETAG = '"one"'


class Connection:
    """What a behaviour says to one client."""

    def __init__(self, stream: socket.socket, server: IsoServer) -> None:
        self.stream = stream
        self._server = server
        self._closing = server.closing

    def head(self, status: int, **headers: str | int) -> None:
        lines = [f"HTTP/1.1 {status} {PHRASES.get(status, 'Word')}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        self.stream.sendall(data)

    def answer(self, status: int, body: bytes = b"", **headers: str | int) -> None:
        self.head(status, **{"Content_Length": len(body), **headers})
        self.send(body)

    def reset(self, after: int = 0) -> None:
        """RST instead of FIN, and no TLS farewell, once the client has so many bytes: what was not read may be dropped."""
        while self._server.arrived() < after and not self._closing.wait(0.002):
            pass
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.close()

    def stall(self) -> None:
        """Say nothing until the test is over."""
        self._closing.wait(30)


PHRASES = {
    200: "OK",
    206: "Partial Content",
    302: "Found",
    404: "Not Found",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


@dataclass
class Request:
    path: str
    headers: dict[str, str]  # names in lower case
    number: int  # of this path, from 1

    @property
    def start(self) -> int | None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(match[1]) if match else None


Behaviour = Callable[[Connection, Request], None]


def well(body: bytes, etag: str = ETAG) -> Behaviour:
    """A file with ranges, as a good server gives it."""

    def behave(connection: Connection, request: Request) -> None:
        start = request.start
        if start is None or request.headers.get("if-range", etag) != etag:
            connection.answer(200, body, ETag=etag)
        elif start >= len(body):
            connection.answer(416, Content_Range=f"bytes */{len(body)}")
        else:
            connection.answer(206, body[start:], Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}", ETag=etag)

    return behave


def first(times: int, bad: Behaviour, then: Behaviour) -> Behaviour:
    return lambda connection, request: (bad if request.number <= times else then)(connection, request)


@dataclass
class IsoServer:
    """Serves `paths`; what is not there is 404. `context` makes it HTTPS."""

    context: ssl.SSLContext | None = None
    paths: dict[str, Behaviour] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    arrived: Callable[[], int] = lambda: 1 << 60  # bytes that the client has

    def __post_init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def url(self, path: str = "", host: str = "localhost") -> str:
        return f"http{'s' if self.context else ''}://{host}:{self.port}{path}"

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    def close(self) -> None:
        self.closing.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(10)

    def _begin(self, target: Callable[..., None], *words: object) -> None:
        thread = threading.Thread(target=target, args=words, daemon=True)
        thread.start()
        self._threads.append(thread)  # only then: `close` may be waiting for all of them

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listening.accept()
            except OSError:
                return
            self._begin(self._serve, stream)

    def _serve(self, stream: socket.socket) -> None:
        with stream:
            stream.settimeout(30)
            try:
                if self.context is not None:
                    stream = self.context.wrap_socket(stream, server_side=True)
                with stream:
                    self._answer(stream)
            except OSError:
                pass  # the client went away, or does not trust us

    def _answer(self, stream: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = stream.recv(65536)
            if not more:
                return
            data += more
            if not data[:1].isupper():  # TLS spoken to a plain server
                stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return
        head, *lines = data.decode().split("\r\n\r\n")[0].split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path = head.split(" ")[1]
        request = Request(path, headers, len(self.asked(path)) + 1)
        self.requests.append(request)
        behave = self.paths.get(path, lambda connection, _: connection.answer(404))
        behave(Connection(stream, self), request)
