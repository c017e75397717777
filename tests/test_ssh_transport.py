"""launcher.ssh.transport: who is let in, how commands run, what errors become."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.errors import ConnectionLost, Refused, WherryError
from launcher.ssh import keys, transport
from launcher.ssh.transport import Terminal
from launcher.store import MachineDir
from tests.guestserver import Guest, guest


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Guest]:
    with guest(tmp_path) as made:
        yield made


@pytest.fixture
def stranger(tmp_path: Path) -> MachineDir:
    machine = MachineDir("stranger", tmp_path / "stranger")
    machine.path.mkdir()
    keys.make_keys(machine)
    return machine


def test_the_connection_is_the_one_we_chose(server: Guest) -> None:
    connection = server.connect()
    found = connection._transport
    assert found.local_cipher == "aes128-gcm@openssh.com"
    assert found.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)  # type: ignore[union-attr]
    assert connection.alive


def test_another_host_key_is_refused_before_we_log_in(server: Guest, stranger: MachineDir) -> None:
    with pytest.raises(Refused, match="is not this machine"):
        server.connect(host_key=stranger.host_key)
    assert not server._transports[0].is_authenticated()


def test_another_client_key_is_refused(server: Guest, stranger: MachineDir) -> None:
    with pytest.raises(Refused, match="does not accept our key"):
        server.connect(client_key=stranger.client_key)


def test_a_port_where_nobody_listens(server: Guest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionLost, match="does not answer over SSH"):
        transport.Connection.connect(port, server.machine.client_key, server.machine.host_key, timeout=30)


def test_a_server_that_hangs_up(server: Guest) -> None:
    """slirp accepts while sshd is not there yet, and closes then."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: listening.accept()[0].close())
        thread.start()
        port = listening.getsockname()[1]
        with pytest.raises(ConnectionLost, match="does not answer over SSH"):
            transport.Connection.connect(port, server.machine.client_key, server.machine.host_key, timeout=30)
        thread.join()


def test_a_server_that_says_nothing(server: Guest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ConnectionLost):
            transport.Connection.connect(port, server.machine.client_key, server.machine.host_key, timeout=0.2)


def test_run_gives_code_stdout_and_stderr(server: Guest) -> None:
    connection = server.connect()
    done = connection.run(["sh", "-c", "cat; echo err >&2; exit 7"], stdin=b"in\0\xff", timeout=30)
    assert done == (7, b"in\0\xff", b"err\n")


def test_run_of_much_on_all_three_streams_does_not_get_stuck(server: Guest) -> None:
    data = os.urandom(6 << 20)
    code, output, errors = server.connect().run(["sh", "-c", "tee /dev/stderr"], stdin=data, timeout=60)
    assert (code, output == data, errors == data) == (0, True, True)


def test_run_of_a_command_that_does_not_end(server: Guest) -> None:
    with pytest.raises(WherryError, match=r"sleep did not end within 0\.2 s") as caught:
        server.connect().run(["sleep", "1000"], timeout=0.2)
    assert type(caught.value) is WherryError


def test_run_when_the_connection_breaks(server: Guest, tmp_path: Path) -> None:
    connection = server.connect()
    os.mkfifo(started := tmp_path / "started")
    failure: list[ConnectionLost] = []

    def run() -> None:
        try:
            # Input comes after the command was started.
            connection.run(["sh", "-c", f"read line; echo > {started}; sleep 1000"], stdin=b"\n", timeout=60)
        except ConnectionLost as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    started.read_text()
    server.drop()
    thread.join()
    assert [error.message for error in failure] == ["the connection to the machine ended while sh ran."]
    assert not connection.alive


def test_environment_and_directory_go_with_the_command(server: Guest, tmp_path: Path) -> None:
    channel = server.connect().start(["sh", "-c", 'echo "$A" "$PWD"'], {"A": "1  2"}, str(tmp_path))
    assert channel.makefile("rb").read() == f"1  2 {tmp_path}\n".encode()


def test_a_large_request_goes_by_a_file_that_only_we_can_read(server: Guest, tmp_path: Path) -> None:
    words = ["x" * 100_000, "y" * 1000]
    assert server.connect().run(["printf", "%s\n", *words], timeout=60) == (0, "\n".join([*words, ""]).encode(), b"")
    upload, command = server.commands
    assert upload.startswith("umask 077; exec cat > ")
    assert command == f"exec {transport.HELPER} -f {upload.split()[-1]}"
    assert not list(tmp_path.glob("request-*"))


def test_a_large_request_that_cannot_be_stored(server: Guest) -> None:
    with pytest.raises(WherryError, match="was not handed to the machine"):
        server.connect(folder="/nonexistent").run(["echo", "x" * 100_000], timeout=30)


def test_a_terminal_has_the_size_and_type_that_was_asked_for(server: Guest) -> None:
    channel = server.connect().start(["stty", "size"], terminal=Terminal("xterm-256color", 11, 42))
    assert channel.makefile("rb").read() == b"11 42\r\n"
    assert server.terminals == [("xterm-256color", 11, 42)]


def test_a_command_that_is_not_started_is_an_error(server: Guest) -> None:
    connection = server.connect()
    server.refused.add("exec")
    with pytest.raises(ConnectionLost, match="echo was not started"):
        connection.run(["echo"], timeout=30)


def test_ping(server: Guest) -> None:
    connection = server.connect()
    assert connection.ping(30)
    assert connection.ping(30)
    connection.close()
    assert not connection.ping(30)


def test_no_key_in_the_log(server: Guest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    server.connect().run(["true"], timeout=30)
    secret = server.machine.client_key.read_text().splitlines()[1:-1]
    assert not [line for line in secret if line in caplog.text]


def test_close_wakes_whoever_waits(server: Guest) -> None:
    connection = server.connect()
    channel = connection.start(["sleep", "1000"])
    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(channel.recv(1)))
    thread.start()
    connection.close()
    connection.close()
    thread.join()
    assert received == [b""]
