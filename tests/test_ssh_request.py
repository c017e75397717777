"""launcher.ssh.request: the fields that the guest's helper reads, and the two messages that paramiko has no call for."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from launcher.errors import Usage
from launcher.ssh import request
from tests.guestserver import Guest, decode, guest


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Guest]:
    with guest(tmp_path) as made:
        yield made


def test_the_fields_of_a_request() -> None:
    assert request.encode(["docker", "run", ""], {"A": "1", "B": "x=y"}, "/c/Users/é") == (
        b"1\0Adocker\0Arun\0A\0EA=1\0EB=x=y\0C/c/Users/\xc3\xa9\0"
    )
    assert request.encode(["true"], {}, None) == b"1\0Atrue\0"


def test_bytes_that_are_no_utf8_arrive_as_they_were() -> None:
    assert request.encode(["echo", b"\xff\xfe".decode("utf-8", "surrogateescape")], {}, None) == b"1\0Aecho\0A\xff\xfe\0"


@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
def test_what_no_argument_can_hold_is_refused(word: str) -> None:
    with pytest.raises(Usage):
        request.encode(["echo", word], {}, None)


def test_only_small_requests_go_on_the_command_line() -> None:
    small = request.encode(["echo", "x" * 40_000], {}, None)
    word = request.inline(small)
    assert word is not None
    assert base64.b64decode(word, validate=True) == small
    assert request.inline(request.encode(["echo", "x" * 50_000], {}, None)) is None


def test_a_request_is_read_back_as_it_was() -> None:
    argv, env = ["sh", "-c", "echo \"$A\" '$B'\n", ""], {"A": "  two  lines\n", "B": ""}
    assert decode(request.encode(argv, env, "/tmp")) == (argv, env, "/tmp")


def test_a_signal_reaches_the_command(server: Guest) -> None:
    connection = server.connect()
    channel = connection.start(["sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do :; done"])
    assert channel.recv(100) == b"ready\n"
    request.send_signal(channel, "USR1")
    assert channel.recv_exit_status() == 9
    assert server.signals == ["USR1"]


def test_a_channel_to_a_socket_of_the_guest_carries_its_path(server: Guest) -> None:
    connection = server.connect()
    connection.open_streamlocal("/run/docker.sock").close()
    connection.open_streamlocal("/run/é.sock").close()
    assert server.sockets == [b"/run/docker.sock", "/run/é.sock".encode()]


def test_a_refused_channel_is_an_error_and_leaves_the_connection_usable(server: Guest) -> None:
    connection = server.connect()
    server.refused.add("direct-streamlocal@openssh.com")
    with pytest.raises(paramiko.ChannelException, match="Connect failed"):
        request.open_streamlocal(connection._transport, "/run/none.sock", 30)
    assert connection.run(["echo", "still"], timeout=30) == (0, b"still\n", b"")


def test_a_channel_on_a_closed_connection_is_refused_at_once(server: Guest) -> None:
    connection = server.connect()
    connection.close()
    with pytest.raises(paramiko.SSHException, match="not active"):
        request.open_streamlocal(connection._transport, "/run/docker.sock", 30)
