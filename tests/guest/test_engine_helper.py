"""The helper that waits for the engine and keeps the hello image there, against a real server on a unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socketserver
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from .helpers import helper

ARCHIVE = bytes(range(256)) * 2000


class Engine(socketserver.ThreadingUnixStreamServer):
    """As much of the engine as the helper talks to. It may hold every request, as dockerd does while it starts."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path) -> None:
        self.images: set[str] = set()
        self.loads = 0
        self.refuse = ""
        self.serving = threading.Event()
        self.serving.set()
        self.listeners: list[Handler] = []
        super().__init__(str(path), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def say(self, count: int = 1) -> None:
        for listener in self.listeners:
            for _ in range(count):
                listener.wfile.write(json.dumps({"Type": "image", "Action": "delete"}).encode() + b"\n")

    def stop(self, path: Path) -> None:
        self.shutdown()
        self.server_close()
        path.unlink(missing_ok=True)
        for listener in self.listeners:
            with contextlib.suppress(OSError):
                listener.connection.shutdown(2)


class Handler(BaseHTTPRequestHandler):
    server: Engine

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.serving.wait(20)
        url = urlsplit(self.path)
        if url.path == "/events":
            filters = json.loads(parse_qs(url.query)["filters"][0])
            assert filters["type"] == ["image"] and {"delete", "untag", "prune"} == set(filters["event"])
            self.answer(200, b"")
            self.wfile.flush()
            self.server.listeners.append(self)
            self.connection.recv(1)
        elif url.path == "/images/wherry.internal/hello:latest/json":
            found = "wherry.internal/hello:latest" in self.server.images
            self.answer(200 if found else 404, b'{"Id":"x"}' if found else b'{"message":"No such image"}')
        else:
            self.answer(404, b"")

    def do_POST(self) -> None:
        assert urlsplit(self.path).path == "/images/load"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert body == ARCHIVE
        self.server.loads += 1
        if self.server.refuse:
            self.answer(500, json.dumps({"message": self.server.refuse}).encode())
        else:
            self.server.images.add("wherry.internal/hello:latest")
            self.answer(200, b'{"stream":"Loaded image"}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name for it
        pass


class Guest:
    """The folders that the helper uses, and the helper's process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.console = folder / "console"
        self.console.touch()
        (folder / "hello.tar").write_bytes(ARCHIVE)
        self.environment = {
            "WHERRY_RUN": str(folder),
            "WHERRY_CONSOLE": str(self.console),
            "WHERRY_HELLO": str(folder / "hello.tar"),
            "WHERRY_ENGINE_SOCKET": str(self.socket),
        }

    def lines(self) -> list[str]:
        return self.console.read_text().splitlines()

    def stages(self) -> list[str]:
        return [line.split()[1] for line in self.lines() if line.startswith("wherry-stage ")]

    @contextlib.contextmanager
    def helper(self) -> Iterator[subprocess.Popen[bytes]]:
        # A session of its own: its children are ended with it.
        with subprocess.Popen([helper("engine")], env=self.environment, start_new_session=True) as process:
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def ensure(self) -> subprocess.CompletedProcess[bytes]:
        command = [helper("engine"), "ensure-hello"]
        return subprocess.run(command, env=self.environment, capture_output=True, timeout=20)


@pytest.fixture
def guest() -> Iterator[Guest]:
    # Not pytest's folder: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="wherry-") as folder:
        yield Guest(Path(folder))


def until(condition: object, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "did not come in time"
        time.sleep(0.02)


def test_stages_in_order_and_ready_after_the_keepers_word(guest: Guest) -> None:
    with guest.helper():
        time.sleep(0.3)
        engine = Engine(guest.socket)
        until(lambda: guest.stages() == ["engine", "hello"])
        time.sleep(0.2)
        (guest.folder / "ssh-port").write_text("1")
        until(lambda: guest.stages() == ["engine", "hello", "ready"])
        assert engine.loads == 1
        for line in guest.lines():
            assert float(line.split()[2]) >= 0 and len(line.split()[2].split(".")[1]) == 2


def test_a_socket_that_holds_its_answers_is_waited_for_without_work(guest: Guest) -> None:
    engine = Engine(guest.socket)
    engine.serving.clear()
    with guest.helper() as process:
        time.sleep(1)
        assert guest.lines() == []
        used = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        assert int(used[11]) + int(used[12]) <= 2  # clock ticks of user and system time
        engine.serving.set()
        until(lambda: guest.stages() == ["engine", "hello"])


def test_an_image_that_is_there_is_not_loaded(guest: Guest) -> None:
    engine = Engine(guest.socket)
    engine.images.add("wherry.internal/hello:latest")
    with guest.helper():
        until(lambda: guest.stages() == ["engine", "hello"])
    assert engine.loads == 0


def test_it_is_loaded_again_after_a_removal_once(guest: Guest) -> None:
    engine = Engine(guest.socket)
    with guest.helper():
        until(lambda: guest.stages() == ["engine", "hello"])
        until(lambda: engine.listeners)
        engine.images.clear()
        engine.say(30)
        until(lambda: engine.images)
        time.sleep(0.6)
        assert engine.loads == 2


def test_an_engine_that_comes_back_is_followed_without_new_stages(guest: Guest) -> None:
    first = Engine(guest.socket)
    with guest.helper():
        until(lambda: guest.stages() == ["engine", "hello"] and first.listeners)
        first.stop(guest.socket)
        time.sleep(0.3)
        second = Engine(guest.socket)
        until(lambda: second.images)
        until(lambda: second.listeners)
        assert guest.stages() == ["engine", "hello"]


def test_a_helper_that_was_killed_says_no_stage_twice(guest: Guest) -> None:
    Engine(guest.socket)
    (guest.folder / "ssh-port").write_text("1")
    for _ in range(2):
        with guest.helper():
            until(lambda: guest.stages() == ["engine", "hello", "ready"])
            time.sleep(0.2)
    assert guest.stages() == ["engine", "hello", "ready"]


def test_a_refused_image_is_a_note_with_the_engines_words_and_ready_comes(guest: Guest) -> None:
    engine = Engine(guest.socket)
    engine.refuse = "no space left on device"
    (guest.folder / "ssh-port").write_text("1")
    with guest.helper():
        until(lambda: guest.stages() == ["engine", "ready"])
    notes = [line for line in guest.lines() if line.startswith("wherry-note hello ")]
    assert len(notes) == 1 and "no space left on device" in notes[0]


def test_ensure_hello(guest: Guest) -> None:
    engine = Engine(guest.socket)
    assert guest.ensure().returncode == 0
    assert guest.ensure().returncode == 0
    assert engine.loads == 1
    engine.images.clear()
    engine.refuse = "no space left on device"
    refused = guest.ensure()
    assert refused.returncode == 1 and b"no space left on device" in refused.stderr


def test_ensure_hello_without_an_engine(guest: Guest) -> None:
    result = guest.ensure()
    assert result.returncode == 1 and b"does not answer" in result.stderr
