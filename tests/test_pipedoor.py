"""The engine's pipe of a machine that is off: held, led on, refused. The keeper is played by a listener of the same kind."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import host

if host.current().NAME != "windows":
    pytest.skip("named pipes are of Windows", allow_module_level=True)

from launcher.host import acls, pipes
from launcher.machine import pipedoor
from launcher.machine.pipedoor import PipeDoor

SECONDS = 30


class Machine:
    """As much of one as a door looks at."""

    def __init__(self) -> None:
        self.path = Path(rf"\\.\pipe\wherry-test-{secrets.token_hex(4)}")
        self.there = True
        self.runs = False

    def exists(self) -> bool:
        return self.there


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(pipedoor, "running", lambda directory: directory.runs)
    monkeypatch.setattr(pipedoor, "_LOOKS_EVERY", 0.1)
    return Machine()


@contextlib.contextmanager
def keeper(machine: Machine) -> Iterator[None]:
    """Answers with what it was sent, in capitals, when it has all of it."""
    listening = pipes.Listening(str(machine.path), beside=True)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, data = listening.accept(), b""
                while piece := client.recv(100):
                    data += piece
                client.sendall(data.upper())
                client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listening.close()
        thread.join(SECONDS)


def asked(machine: Machine, data: bytes) -> pipes.Pipe:
    client = pipes.connect(str(machine.path), SECONDS)
    client.sendall(data)
    return client


def rest(client: pipes.Pipe) -> bytes:
    client.settimeout(SECONDS)
    found = b""
    while data := client.recv(100):
        found += data
    client.close()
    return found


def test_who_comes_is_held_and_led_on(machine: Machine) -> None:
    door: Any = PipeDoor(machine.path)
    pipes.connect(str(machine.path), SECONDS).close()  # who only looks starts nothing
    silent = pipes.connect(str(machine.path), SECONDS)
    assert not door._asked.wait(0.5)
    client = asked(machine, b"question ")
    assert door.wait(machine)
    with keeper(machine):
        machine.runs = True
        door.close(passed_on=True)
        for one in (client, silent):
            one.sendall(b"and more")
            one.shutdown(socket.SHUT_WR)
        assert (rest(client), rest(silent)) == (b"QUESTION AND MORE", b"AND MORE")
        later = asked(machine, b"later")
        later.shutdown(socket.SHUT_WR)
        assert rest(later) == b"LATER"


def test_a_start_that_fails_is_told_to_the_client(machine: Machine) -> None:
    door: Any = PipeDoor(machine.path)
    client = asked(machine, b"GET /_ping HTTP/1.1\r\n\r\n")
    assert door.wait(machine)
    door.close(passed_on=True, why="the machine default did not start: é")
    said = rest(client)
    assert said.startswith(b"HTTP/1.1 503 ") and said.endswith(b'{"message": "the machine default did not start: \\u00e9"}')


def test_a_machine_that_somebody_else_starts_or_deletes_is_no_concern(machine: Machine) -> None:
    door: Any = PipeDoor(machine.path)
    client = asked(machine, b"x")
    machine.runs = True
    assert not door.wait(machine)
    with keeper(machine):
        door.close(passed_on=False)
        client.shutdown(socket.SHUT_WR)
        assert rest(client) == b"X"
    machine.there = machine.runs = False
    door = PipeDoor(machine.path)
    client = asked(machine, b"x")
    assert not door.wait(machine)
    door.close(passed_on=False)
    assert rest(client) == b""


def test_a_keeper_listens_beside_the_door_and_beside_nobody_else(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows answers who wants to be the first; Wine lets anybody be that."""
    make, handed = pipes._winapi.CreateNamedPipe, []

    def create(name: str, mode: int, *words: Any) -> Any:
        if mode & pipes._FIRST and handed:
            raise PermissionError(13, "Access is denied", name, 5)
        handed.append(name)
        return make(name, mode, *words)

    monkeypatch.setattr(pipes, "_winapi", SimpleNamespace(**{**vars(pipes._winapi), "CreateNamedPipe": create}))
    first = pipes.Listening(str(machine.path))
    with pytest.raises(PermissionError):
        pipes.Listening(str(machine.path))
    beside = pipes.Listening(str(machine.path), beside=True)
    beside.close()
    monkeypatch.setattr(acls, "user", lambda: "S-1-5-21-1-2-3-4")
    with pytest.raises(OSError):  # of another user
        pipes.Listening(str(machine.path), beside=True)
    first.close()
