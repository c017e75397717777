"""Named pipes on Windows: the listener and the client that the keeper and the commands use there."""

from __future__ import annotations

import secrets
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

if sys.platform != "win32":
    pytest.skip("named pipes are of Windows", allow_module_level=True)

from launcher.host import acls, pipes


@pytest.fixture
def name() -> str:
    return rf"\\.\pipe\wherry-test-{secrets.token_hex(4)}"


@pytest.fixture
def pair(name: str) -> Iterator[tuple[pipes.Pipe, pipes.Pipe]]:
    """Both ends of one connection: the server's, the client's."""
    listening = pipes.Listening(name)
    client = pipes.connect(name, 5)
    server = listening.accept()
    yield server, client
    for end in (server, client, listening):
        end.close()


def test_bytes_go_both_ways(pair: tuple[pipes.Pipe, pipes.Pipe]) -> None:
    server, client = pair
    client.sendall(b"question")
    assert server.recv(100) == b"question"
    server.sendall(b"answer")
    assert client.recv(3) + client.recv(100) == b"answer"


def test_much_arrives_whole_and_in_order(pair: tuple[pipes.Pipe, pipes.Pipe]) -> None:
    server, client = pair
    sent = secrets.token_bytes(3 << 20)
    writer = threading.Thread(target=lambda: (client.sendall(sent), client.shutdown(socket.SHUT_WR)))
    writer.start()
    found = bytearray()
    while data := server.recv(100_000):
        found += data
    writer.join()
    assert found == sent


def test_an_end_of_input_leaves_the_answer_possible(pair: tuple[pipes.Pipe, pipes.Pipe]) -> None:
    server, client = pair
    client.sendall(b"all of it")
    client.shutdown(socket.SHUT_WR)
    assert [server.recv(100), server.recv(100), server.recv(100)] == [b"all of it", b"", b""]
    server.sendall(b"heard")
    assert client.recv(100) == b"heard"


def test_what_was_sent_before_a_close_is_read(pair: tuple[pipes.Pipe, pipes.Pipe]) -> None:
    server, client = pair
    server.sendall(b"last words")
    server.close()
    assert [client.recv(100), client.recv(100)] == [b"last words", b""]
    with pytest.raises(OSError):
        client.sendall(b"nobody hears")


def test_who_reads_hears_of_a_shutdown_and_of_a_close(pair: tuple[pipes.Pipe, pipes.Pipe]) -> None:
    server, client = pair
    for end, stop in ((server, lambda: server.shutdown(socket.SHUT_RDWR)), (client, client.close)):
        found: list[bytes] = []
        reader = threading.Thread(target=lambda end=end, found=found: found.append(end.recv(1)))
        reader.start()
        stop()
        reader.join(10)
        assert found == [b""]


def test_a_read_ends_in_time_and_loses_nothing(pair: tuple[pipes.Pipe, pipes.Pipe]) -> None:
    server, client = pair
    server.settimeout(0.05)
    with pytest.raises(TimeoutError):
        server.recv(1)
    client.sendall(b"later")
    assert server.recv(100) == b"later"


def test_a_write_that_nobody_reads_ends_in_time(pair: tuple[pipes.Pipe, pipes.Pipe]) -> None:
    _server, client = pair
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.sendall(bytes(4 << 20))


def test_many_clients_at_once(name: str) -> None:
    listening = pipes.Listening(name)
    answers: list[bytes] = []

    def serve() -> None:
        for _ in range(20):
            stream = listening.accept()
            threading.Thread(target=lambda stream=stream: (stream.sendall(stream.recv(10)), stream.close())).start()

    def ask(number: int) -> None:
        stream = pipes.connect(name, 30)
        stream.sendall(b"%d" % number)
        answers.append(stream.recv(10))
        stream.close()

    threads = [threading.Thread(target=serve), *(threading.Thread(target=ask, args=(number,)) for number in range(20))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    listening.close()
    assert sorted(answers) == sorted(b"%d" % number for number in range(20))


def test_nobody_listens(name: str) -> None:
    with pytest.raises(FileNotFoundError):
        pipes.connect(name, 5)
    listening = pipes.Listening(name)
    listening.close()
    with pytest.raises(FileNotFoundError):
        pipes.connect(name, 5)


def test_who_accepts_hears_of_the_end(name: str) -> None:
    listening = pipes.Listening(name)
    ended = threading.Event()

    def accept() -> None:
        with pytest.raises(OSError):
            listening.accept()
        ended.set()

    thread = threading.Thread(target=accept)
    thread.start()
    listening.close()
    assert ended.wait(10)
    thread.join()


def test_a_pipe_of_another_user_is_not_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert acls.user().startswith("S-1-5-")
    listening = pipes.Listening(name)
    monkeypatch.setattr(acls, "user", lambda: "S-1-5-21-1-2-3-4")
    with pytest.raises(PermissionError, match="another user"):
        pipes.connect(name, 5)
    listening.close()


def test_one_program_that_takes_it_for_a_file(name: str) -> None:
    listening = pipes.Listening(name, inbound=True)
    with open(name, "wb", buffering=0) as file:
        stream = listening.accept()
        file.write(b"a line\n")
        assert stream.recv(100) == b"a line\n"
    assert stream.recv(100) == b""
    stream.close()
    listening.close()
