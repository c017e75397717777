"""launcher.keeper.engine: small HTTP calls over a channel to the engine's socket."""

from __future__ import annotations

import json
import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.errors import ConnectionLost, EngineFailed
from launcher.keeper import engine
from launcher.ssh.transport import Connection
from tests.guestserver import Guest, guest


class FakeEngine:
    """Answers every request with the same bytes and keeps what it was asked."""

    def __init__(self, path: Path) -> None:
        self.answer = b""
        self.asked: list[bytes] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                stream, _ = self._listening.accept()
            except OSError:
                return
            with stream:
                self.asked.append(_whole(stream))
                stream.sendall(self.answer)


def _whole(stream: socket.socket) -> bytes:
    """One request, with as much of a body as its head announces."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += stream.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += stream.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def fake(server: Guest) -> Iterator[FakeEngine]:
    with tempfile.TemporaryDirectory(prefix="wherry-") as folder:
        server.engine = Path(folder) / "s"
        made = FakeEngine(server.engine)
        yield made
        made.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Guest]:
    with guest(tmp_path) as made:
        yield made


@pytest.fixture
def connection(server: Guest, fake: FakeEngine) -> Connection:
    return server.connect()


def answer(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_a_call_goes_to_the_engines_socket(connection: Connection, fake: FakeEngine, server: Guest) -> None:
    fake.answer = answer("200 OK", b"OK")
    assert engine.request(connection, "GET", "/_ping") == (200, b"OK")
    assert server.sockets == [b"/run/docker.sock"]
    assert fake.asked == [b"GET /_ping HTTP/1.1\r\nAccept-Encoding: identity\r\nHost: docker\r\n\r\n"]


def test_a_chunked_answer(connection: Connection, fake: FakeEngine) -> None:
    fake.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n2\r\n,2\r\n1\r\n]\r\n0\r\n\r\n"
    assert engine.call(connection, "GET", "/x") == [1, 2]


def test_a_large_answer(connection: Connection, fake: FakeEngine) -> None:
    body = json.dumps(["x" * 100] * 50_000).encode()
    fake.answer = answer("200 OK", body)
    assert engine.request(connection, "GET", "/x") == (200, body)


def test_a_body_is_json(connection: Connection, fake: FakeEngine) -> None:
    fake.answer = answer("201 Created", b"")
    assert engine.call(connection, "POST", "/containers/create", {"Image": "é"}) is None
    assert b"Content-Type: application/json" in fake.asked[0]
    assert fake.asked[0].endswith(b'\r\n\r\n{"Image": "\\u00e9"}')


def test_a_body_of_bytes_goes_as_it_is(connection: Connection, fake: FakeEngine) -> None:
    fake.answer = answer("200 OK", b"")
    engine.request(connection, "POST", "/images/load", b"\0\xff")
    assert fake.asked[0].endswith(b"\r\n\r\n\0\xff")


def test_the_version_is_in_the_head_of_an_answer(connection: Connection, fake: FakeEngine) -> None:
    """For `/version` the engine runs three programs."""
    head, _, body = answer("200 OK", b"OK").partition(b"\r\n\r\n")
    fake.answer = head + b"\r\nServer: Docker/28.5.2+dfsg4 (linux)\r\n\r\n" + body
    assert engine.version(connection) == "28.5.2+dfsg4"
    assert [one.split()[1] for one in fake.asked] == [b"/_ping"]


def test_the_version_of_one_that_does_not_tell(connection: Connection, fake: FakeEngine) -> None:
    fake.answer = answer("200 OK", b'{"Version": "28.5.2"}')
    assert engine.version(connection) == "28.5.2"
    assert [one.split()[1] for one in fake.asked] == [b"/_ping", b"/version"]


@pytest.mark.parametrize(("body", "words"), [(b'{"message": "no such thing"}', "no such thing"), (b"plain\n", "plain")])
def test_an_error_has_the_engines_words(connection: Connection, fake: FakeEngine, body: bytes, words: str) -> None:
    fake.answer = answer("404 Not Found", body)
    with pytest.raises(EngineFailed, match=f"answered 404 to GET /x: {words}$") as raised:
        engine.call(connection, "GET", "/x")
    assert raised.value.status == 404
    assert engine.request(connection, "GET", "/x")[0] == 404


@pytest.mark.parametrize("broken", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"nonsense\r\n\r\n"])
def test_an_engine_that_hangs_up(connection: Connection, fake: FakeEngine, broken: bytes) -> None:
    fake.answer = broken
    with pytest.raises(ConnectionLost, match="did not answer GET /x"):
        engine.request(connection, "GET", "/x")


def test_no_engine(server: Guest) -> None:
    server.refused.add("direct-streamlocal@openssh.com")
    with pytest.raises(ConnectionLost, match=r"/run/docker\.sock in the machine cannot be reached"):
        engine.request(server.connect(), "GET", "/_ping")
