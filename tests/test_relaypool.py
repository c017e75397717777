"""launcher.keeper.relaypool: channels of a real SSH connection that wait at the guest's real relay."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher.keeper.link import Link
from launcher.keeper.proxy.client import Client
from launcher.keeper.relaypool import SPARE, RelayPool
from tests.guest.helpers import helper
from tests.guestserver import Guest, guest

PLACE = "/run/wherry/x.keeper"


class Setup:
    """The keeper's answer is what came, turned around."""

    def __init__(self, machine: Guest, folder: Path) -> None:
        self.guest = machine
        self.clients, self.channels = folder / "c", folder / "k"
        machine.places[PLACE.encode()] = self.channels
        self.process: subprocess.Popen[bytes] | None = None
        self.link = Link(machine.connect)
        self.pool = RelayPool(self.link, PLACE, self.serve, pauses=(0.05,) * 10)
        self.served = 0

    def serve(self, client: Client) -> None:
        self.served += 1
        data = b""
        while piece := client.recv(65536):
            data += piece
        if data == b"fail":
            raise RuntimeError("as asked")
        client.sendall(data[::-1])
        client.shutdown(socket.SHUT_WR)

    def relay(self) -> None:
        self.process = subprocess.Popen([helper("relay"), self.clients, self.channels])
        wait(self.channels.exists)

    def end_relay(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.channels.unlink(missing_ok=True)

    def waiting(self) -> int:
        """Descriptors of the relay beside its own: nothing, epoll, two sockets and what it inherited."""
        assert self.process is not None
        links = []
        for fd in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                links.append(str(fd.readlink()))
        return sum(link.startswith("socket:") for link in links) - 2

    def call(self, data: bytes = b"abc") -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(self.clients))
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            got = b""
            while piece := client.recv(65536):
                got += piece
            return got


def wait(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    with tempfile.TemporaryDirectory(prefix="w") as short, guest(tmp_path) as machine:
        made = Setup(machine, Path(short))
        yield made
        made.link.drop()
        made.pool.close()
        made.end_relay()


@pytest.fixture
def up(setup: Setup) -> Setup:
    setup.relay()
    setup.link.get()
    wait(lambda: setup.waiting() == SPARE)
    return setup


def pool_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in ("relay-waits", "link-up")]


def test_a_client_takes_a_channel_and_another_comes_in_its_place(up: Setup) -> None:
    assert up.pool.usable(0)
    assert up.call() == b"cba"
    wait(lambda: up.waiting() == SPARE)
    assert len(up.guest.sockets) == SPARE + 1
    time.sleep(0.3)
    assert len(up.guest.sockets) == SPARE + 1  # nothing is dialled at rest


def test_a_burst(up: Setup) -> None:
    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda number: up.call(b"%04d" % number), range(300)))
    assert answers == [(b"%04d" % number)[::-1] for number in range(300)]
    wait(lambda: up.waiting() == SPARE)
    wait(lambda: len(pool_threads()) == SPARE + 1)


def test_one_clients_failure_is_its_own(up: Setup) -> None:
    assert up.call(b"fail") == b""
    assert up.call() == b"cba"


def test_channels_come_back_after_a_reconnect(up: Setup) -> None:
    for _ in range(3):
        dialled = len(up.guest.sockets)
        up.guest.drop()
        wait(lambda: len(up.guest.sockets) == dialled + SPARE and up.waiting() == SPARE)  # noqa: B023
        assert up.call() == b"cba"
        # The one in its place is still being dialled, and is not to be taken for one of the next connection's.
        wait(lambda: len(up.guest.sockets) == dialled + SPARE + 1 and up.waiting() == SPARE)  # noqa: B023
    wait(lambda: len(pool_threads()) == SPARE + 1)


def test_channels_come_back_when_the_relay_does(up: Setup) -> None:
    up.end_relay()
    dialled = len(up.guest.sockets)
    wait(lambda: len(up.guest.sockets) > dialled + 12)  # more tries than for one that was never there
    assert up.pool.usable(0)  # its clients are not led past us meanwhile
    up.relay()
    wait(lambda: up.waiting() == SPARE)
    assert up.call() == b"cba"


def test_a_relay_that_comes_late_is_met(setup: Setup) -> None:
    setup.pool._pauses = (0.05,) * 600  # the relay's start may take long on a busy computer
    setup.guest.refused.add("direct-streamlocal@openssh.com")
    setup.link.get()
    assert not setup.pool.usable(30)  # known with the first try
    setup.relay()
    setup.guest.refused.clear()
    wait(lambda: setup.pool.usable(0))
    assert setup.call() == b"cba"


def test_a_guest_without_a_relay_is_left_alone(setup: Setup) -> None:
    """An older image: a few tries, then none until the next connection."""
    setup.guest.refused.add("direct-streamlocal@openssh.com")
    setup.link.get()
    assert not setup.pool.usable(30)
    wait(lambda: not pool_threads())
    tries = len(setup.guest.sockets)
    time.sleep(0.3)
    assert len(setup.guest.sockets) == tries == 11


def test_close_leaves_nothing_in_the_guest(up: Setup) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(up.clients))
        client.sendall(b"begun")
        wait(lambda: up.served == 1)
        wait(lambda: up.waiting() == SPARE + 2)
        up.pool.close()
        assert client.recv(1) == b""
    wait(lambda: up.waiting() == 0)
    wait(lambda: not pool_threads())
    assert not up.pool.usable(1)
    with contextlib.suppress(ConnectionError):
        assert up.call() == b""
    assert up.served == 1
