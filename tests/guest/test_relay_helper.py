"""The guest's relay: clients on one socket are joined with channels of the keeper that wait on the other."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .helpers import helper


class Relay:
    """One that runs. `call` is a client, `dial` what the keeper does by a channel."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.clients, self.keeper = folder / "c", folder / "k"
        self.process = subprocess.Popen([helper("relay"), *words, self.clients, self.keeper])
        self.wait(lambda: self.keeper.exists())

    def wait(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not true():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)

    def connect(self, path: Path) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(30)
        made.connect(str(path))
        return made

    def call(self, words: bytes = b"") -> socket.socket:
        client = self.connect(self.clients)
        client.sendall(words)
        return client

    def dial(self) -> socket.socket:
        """A channel that waits; the relay has seen it."""
        before = self.descriptors()
        channel = self.connect(self.keeper)
        self.wait(lambda: self.descriptors() > before)
        return channel

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu(self) -> int:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().split()
        return int(fields[13]) + int(fields[14])

    def memory(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


Maker = Callable[..., Relay]


@pytest.fixture
def start() -> Iterator[Maker]:
    made: list[Relay] = []
    with tempfile.TemporaryDirectory(prefix="w") as folder:

        def starter(*words: str) -> Relay:
            made.append(Relay(Path(folder), *words))
            return made[-1]

        yield starter
        for relay in made:
            relay.process.kill()
            relay.process.wait()


def everything(stream: socket.socket) -> bytes:
    got = b""
    while data := stream.recv(65536):
        got += data
    return got


def test_the_sockets_are_roots_unless_told(start: Maker) -> None:
    relay = start()
    assert stat.S_IMODE(relay.clients.stat().st_mode) == stat.S_IMODE(relay.keeper.stat().st_mode) == 0o600
    assert sorted(os.listdir(relay.clients.parent)) == ["c", "k"]
    relay.process.kill()
    relay.process.wait()
    again = start("-m", "666")  # over the sockets that the one before left
    again.wait(lambda: stat.S_IMODE(again.clients.stat().st_mode) == 0o666)
    assert stat.S_IMODE(again.keeper.stat().st_mode) == 0o600


def test_both_directions_and_each_ones_end(start: Maker) -> None:
    relay = start()
    idle = relay.descriptors()
    with relay.dial() as channel, relay.call(b"ask") as client:
        assert channel.recv(100) == b"ask"
        channel.sendall(b"part")
        assert client.recv(100) == b"part"
        client.shutdown(socket.SHUT_WR)
        assert channel.recv(100) == b""
        channel.sendall(b" and rest")  # the other direction goes on
        assert client.recv(100) == b" and rest"
        channel.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    relay.wait(lambda: relay.descriptors() == idle)


def test_the_keeper_may_end_its_direction_first(start: Maker) -> None:
    relay = start()
    with relay.dial() as channel, relay.call(b"ask") as client:
        assert channel.recv(100) == b"ask"
        channel.sendall(b"all")
        channel.shutdown(socket.SHUT_WR)
        assert everything(client) == b"all"
        client.sendall(b"more")
        assert channel.recv(100) == b"more"


def test_a_client_that_says_nothing_takes_no_channel(start: Maker) -> None:
    relay = start("-w", "0")
    with relay.dial() as channel, relay.call() as silent:
        with relay.call(b"quick") as quick:
            assert channel.recv(100) == b"quick"
            channel.sendall(b"yes")
            assert quick.recv(100) == b"yes"
        silent.settimeout(0.2)
        with pytest.raises(TimeoutError):  # its patience has not begun
            silent.recv(1)


def test_the_newest_channel_is_taken_first(start: Maker) -> None:
    relay = start()
    with relay.dial(), relay.dial() as newest, relay.call(b"x"):
        assert newest.recv(1) == b"x"


def test_a_channel_that_died_while_it_waited_is_not_taken(start: Maker) -> None:
    relay = start()
    idle = relay.descriptors()
    with relay.dial() as older:
        relay.dial().close()
        relay.wait(lambda: relay.descriptors() == idle + 1)
        with relay.call(b"x"):
            assert older.recv(1) == b"x"


def test_clients_wait_for_a_channel_in_their_order(start: Maker) -> None:
    relay = start()
    clients = []
    for number in range(5):
        before = relay.descriptors()
        clients.append(relay.call(b"%d" % number))
        relay.wait(lambda before=before: relay.descriptors() > before)  # type: ignore[misc]
    with contextlib.ExitStack() as stack:  # all stay open: `dial` counts what the relay has open
        for number, client in enumerate(clients):
            stack.enter_context(client)
            channel = stack.enter_context(relay.dial())
            assert channel.recv(10) == b"%d" % number


def test_patience_ends_with_the_answer(start: Maker, tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    answer.write_bytes(b"nobody is there\n")
    relay = start("-w", "1", "-a", str(answer))
    idle = relay.descriptors()
    began = time.monotonic()
    with relay.call(b"GET / HTTP/1.1\r\n\r\n") as client:
        assert everything(client) == b"nobody is there\n"
    assert time.monotonic() - began >= 0.9
    relay.wait(lambda: relay.descriptors() == idle)


def test_no_patience_ends_while_channels_come_for_others(start: Maker, tmp_path: Path) -> None:
    """Many clients at once and a keeper that is slow, but there."""
    answer = tmp_path / "answer"
    answer.write_bytes(b"nobody is there\n")
    relay = start("-w", "4", "-a", str(answer))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(relay.call(b"%d" % number)) for number in range(5)]
        for number in range(4):
            clients[4].settimeout(1.5)
            with pytest.raises(TimeoutError):  # the fourth channel comes after six seconds, and the last client has no answer
                clients[4].recv(1)
            channel = stack.enter_context(relay.connect(relay.keeper))
            assert channel.recv(10) == b"%d" % number
        clients[4].settimeout(30)
        assert everything(clients[4]) == b"nobody is there\n"  # since then nobody came


def test_a_channel_that_ends_before_it_said_anything(start: Maker, tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    answer.write_bytes(b"lost\n")
    relay = start("-a", str(answer))
    idle = relay.descriptors()
    for said in (b"", b"half of"):
        channel = relay.dial()
        with relay.call(b"ask") as client:
            assert channel.recv(3) == b"ask"
            channel.sendall(said)
            channel.close()
            assert everything(client) == (said or b"lost\n")
        relay.wait(lambda: relay.descriptors() == idle)  # dial counts them


def test_a_client_that_went_while_it_waited_gets_no_channel(start: Maker) -> None:
    relay = start()
    idle = relay.descriptors()
    with relay.call(b"gone"):
        relay.wait(lambda: relay.descriptors() == idle + 1)
        time.sleep(0.1)  # it waits now
    relay.wait(lambda: relay.descriptors() == idle)
    with relay.dial() as channel, relay.call(b"next"):
        assert channel.recv(100) == b"next"


@pytest.mark.parametrize("who", ["client", "channel"])
def test_one_side_that_dies_ends_the_other(start: Maker, who: str) -> None:
    relay = start()
    idle = relay.descriptors()
    channel, client = relay.dial(), relay.call(b"x")
    assert channel.recv(1) == b"x"
    dying, other = (client, channel) if who == "client" else (channel, client)
    dying.close()
    assert other.recv(1) == b""
    relay.wait(lambda: relay.descriptors() == idle)
    with pytest.raises(BrokenPipeError):
        other.sendall(b"y")
    other.close()


def test_what_was_sent_before_the_end_arrives(start: Maker) -> None:
    """More than fits into sockets and buffer, from a client that is gone before the first byte is read."""
    relay = start()
    sent = os.urandom(1 << 20)
    channel = relay.dial()

    def send() -> None:
        with relay.call() as client:
            client.sendall(sent)

    sender = threading.Thread(target=send)
    sender.start()
    with channel:
        first = channel.recv(1)
        time.sleep(0.2)
        assert first + everything(channel) == sent
    sender.join()


def test_a_reader_that_stops_costs_no_memory_and_no_cpu(start: Maker) -> None:
    relay = start()
    with relay.dial() as channel, relay.call(b"x") as client:
        assert channel.recv(1) == b"x"
        before = relay.memory()
        for sender in (client, channel):
            sender.settimeout(0.5)
            with pytest.raises(TimeoutError):
                while True:
                    sender.sendall(bytes(1 << 16))
        assert relay.memory() - before < 1 << 20
        cpu = relay.cpu()
        time.sleep(1)
        assert relay.cpu() - cpu <= 2
        with relay.dial() as other, relay.call(b"y"):  # and holds nobody else up
            assert other.recv(1) == b"y"


def test_nothing_is_done_at_rest(start: Maker) -> None:
    """Half of a pair has ended, a client waits, a channel waits: no wake-ups at all."""
    relay = start("-w", "600")
    with relay.dial() as channel, relay.call(b"x") as client, relay.call():
        assert channel.recv(1) == b"x"
        client.shutdown(socket.SHUT_WR)
        assert channel.recv(1) == b""
        with relay.call(b"waits"):

            def switches() -> list[str]:
                text = Path(f"/proc/{relay.process.pid}/status").read_text()
                return [line for line in text.splitlines() if "ctxt_switches" in line]

            # It sleeps only when all that came was looked at.
            relay.wait(lambda: "State:\tS" in Path(f"/proc/{relay.process.pid}/status").read_text())
            before = switches()
            time.sleep(1)  # in which nothing is to happen
            assert switches() == before


def test_many_at_once_and_nothing_stays(start: Maker) -> None:
    relay = start()
    idle, memory = relay.descriptors(), relay.memory()

    def keeper() -> None:
        for _ in range(25):
            with relay.connect(relay.keeper) as channel:
                assert channel.recv(1) == b"x"
                channel.sendall(everything(channel)[::-1])

    def client() -> None:
        for _ in range(25):
            with relay.call(b"x") as stream:
                stream.sendall(b"abc" * 10_000)
                stream.shutdown(socket.SHUT_WR)
                assert everything(stream) == b"cba" * 10_000

    threads = [threading.Thread(target=work) for work in [keeper] * 20 + [client] * 20]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    relay.wait(lambda: relay.descriptors() == idle)
    assert relay.memory() - memory < 2 << 20


def test_wrong_words_are_told(tmp_path: Path) -> None:
    for words in ([], ["a"], ["-m", "9", "a", "b"], ["-w", "x", "a", "b"], ["-z", "a", "b"]):
        assert subprocess.run([helper("relay"), *words], cwd=tmp_path, stderr=subprocess.DEVNULL).returncode == 2
    for words in (["no/such/c", "no/such/k"], ["-a", "missing", "c", "k"], ["x" * 120, "k"]):
        assert subprocess.run([helper("relay"), *words], cwd=tmp_path, stderr=subprocess.DEVNULL).returncode == 1


def test_ends_when_told(start: Maker) -> None:
    relay = start()
    relay.process.send_signal(signal.SIGTERM)
    assert relay.process.wait(10) == -signal.SIGTERM
