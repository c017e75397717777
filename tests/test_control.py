from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import __version__, control
from launcher.control import Framed
from launcher.errors import ConnectionLost, NoProgress, NotRunning, WherryError
from tests.systems import not_on_windows


@pytest.fixture
def pair() -> Iterator[tuple[Framed, Framed]]:
    left, right = socket.socketpair()
    with left, right:
        yield Framed(left), Framed(right)


def test_frames_keep_their_bounds_whatever_the_stream_does(pair: tuple[Framed, Framed]) -> None:
    left, right = pair
    data = b"".join(
        bytes([kind]) + len(payload).to_bytes(4, "big") + payload
        for kind, payload in ((79, b"a" * 70000), (73, b""), (69, b"\x00\xff"))
    )

    def dribble() -> None:
        for position in range(0, len(data), 777):
            left.stream.sendall(data[position : position + 777])
        left.stream.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=dribble)
    thread.start()
    assert right.receive() == (b"O", b"a" * 70000)
    assert right.receive() == (b"I", b"")
    assert right.receive() == (b"E", b"\x00\xff")
    assert right.receive() is None
    thread.join()


def test_half_a_frame_is_a_lost_connection(pair: tuple[Framed, Framed]) -> None:
    left, right = pair
    left.stream.sendall(b"O\x00\x00\x00\x05ab")
    left.stream.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionLost):
        right.receive()


def test_a_foreign_length_is_not_believed(pair: tuple[Framed, Framed]) -> None:
    left, right = pair
    left.stream.sendall(b"G\xff\xff\xff\xff")
    with pytest.raises(ConnectionLost, match="too large"):
        right.receive()


@not_on_windows("arguments are text")
def test_undecodable_bytes_of_an_argument_survive(pair: tuple[Framed, Framed]) -> None:
    import json
    import os

    left, right = pair
    word = os.fsdecode(b"caf\xe9")
    left.send_json({"argv": [word]})
    frame = right.receive()
    assert frame is not None
    assert os.fsencode(json.loads(frame[1])["argv"][0]) == b"caf\xe9"


def test_events_end_with_the_result(pair: tuple[Framed, Framed]) -> None:
    left, right = pair
    left.send_json({"event": "stage", "name": "kernel"})
    left.send(control.STDOUT, b"not for us")
    left.send_json({"ok": True, "data": 5})
    assert [event.get("event") for event in control.events(right)] == ["stage", None]


def test_the_error_of_the_other_side_is_raised_with_its_kind(pair: tuple[Framed, Framed]) -> None:
    left, right = pair
    left.send_json({"ok": False, "error": NoProgress("no word", hint="look", detail="tail").to_json()})
    with pytest.raises(NoProgress) as caught:
        list(control.events(right))
    assert (caught.value.message, caught.value.hint, caught.value.detail) == ("no word", "look", "tail")


def test_no_result_is_a_lost_connection(pair: tuple[Framed, Framed]) -> None:
    left, right = pair
    left.send_json({"event": "stage"})
    left.stream.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionLost):
        list(control.events(right))


@not_on_windows("unix sockets")
def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        control.connect(tmp_path / "no.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale.sock"))
    with pytest.raises(NotRunning):
        control.connect(tmp_path / "stale.sock")


def test_another_protocol_is_refused() -> None:
    control.check_request({"protocol": control.PROTOCOL, "wherry": __version__})
    with pytest.raises(WherryError, match="protocol"):
        control.check_request({"protocol": control.PROTOCOL + 1, "wherry": "9"})


def test_where_no_socket_can_be_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        control.connect(tmp_path / ("x" * 150))
