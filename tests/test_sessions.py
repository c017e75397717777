"""launcher.keeper.sessions: what goes over the control socket while a command runs, and what becomes of it when a side ends."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import control
from launcher.control import Framed
from launcher.errors import Usage
from launcher.keeper.sessions import Exec
from launcher.keeper.slots import StartSlots
from launcher.ssh.transport import Terminal
from tests.fakekeeper import Keeper, keeper
from tests.guestserver import Guest, guest


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Guest]:
    with guest(tmp_path) as made:
        yield made


@pytest.fixture
def served(server: Guest) -> Iterator[Keeper]:
    with keeper(server.connect()) as made:
        yield made


class Client:
    """A client of the keeper that does nothing by itself."""

    def __init__(self, served: Keeper, argv: list[str], **more: Any) -> None:
        self.framed = control.request(served.path, "exec", argv=argv, **more)
        self.credit = 0

    def until(self, kind: bytes) -> bytes:
        while (frame := self.framed.receive()) is not None:
            if frame[0] == kind:
                return frame[1]
        raise AssertionError(f"the keeper ended before it sent {kind!r}")

    def end(self) -> tuple[dict[str, Any], bytes, bytes]:
        """The exit frame's content, all of stdout and of stderr."""
        streams = {control.STDOUT: bytearray(), control.STDERR: bytearray()}
        while (frame := self.framed.receive()) is not None:
            kind, payload = frame
            if kind in streams:
                streams[kind] += payload
            elif kind == control.CREDIT:
                self.credit += int.from_bytes(payload, "big")
            elif kind in (control.EXIT, control.JSON):
                self.framed.close()
                return json.loads(payload), bytes(streams[control.STDOUT]), bytes(streams[control.STDERR])
        raise AssertionError("the keeper ended without an exit frame")


def test_stdout_stderr_and_the_exit_code(served: Keeper) -> None:
    assert Client(served, ["sh", "-c", "echo out; echo err >&2; exit 7"]).end() == ({"code": 7}, b"out\n", b"err\n")


def test_environment_and_directory(served: Keeper, tmp_path: Path) -> None:
    client = Client(served, ["sh", "-c", 'echo "$A" "$PWD"'], env={"A": "b"}, cwd=str(tmp_path))
    assert client.end() == ({"code": 0}, f"b {tmp_path}\n".encode(), b"")


def test_input_both_ways_its_credit_and_its_end(served: Keeper) -> None:
    client = Client(served, ["cat"])
    client.framed.send(control.STDIN, b"\0\xff" * 1000)
    client.framed.send(control.STDIN, b"last")
    client.framed.send(control.STDIN_END)
    assert client.end() == ({"code": 0}, b"\0\xff" * 1000 + b"last", b"")
    assert client.credit == 2004


def test_much_output_on_both_streams(served: Keeper) -> None:
    code, output, errors = Client(served, ["sh", "-c", "head -c 6000000 /dev/zero | tee /dev/stderr"]).end()
    assert (code, len(output), len(errors)) == ({"code": 0}, 6_000_000, 6_000_000)


def test_a_client_that_sends_more_than_its_credit_is_dropped(served: Keeper, server: Guest) -> None:
    client = Client(served, ["sleep", "1000"])
    with pytest.raises(OSError):  # broken pipe or reset, as the kernel likes
        for _ in range(1000):
            client.framed.send(control.STDIN, bytes(control.CHUNK))
    server.wait(lambda: server.signals == ["KILL"])
    client.framed.close()


def test_a_signal_passes_input_that_nobody_takes(served: Keeper, server: Guest) -> None:
    client = Client(served, ["sh", "-c", "echo on; exec sleep 1000"])
    client.until(control.STDOUT)
    for _ in range(control.STDIN_WINDOW // control.CHUNK):
        client.framed.send(control.STDIN, bytes(control.CHUNK))
    client.framed.send(control.SIGNAL, b"INT")
    assert client.end()[0] == {"code": 130}
    assert server.signals == ["INT"]


def test_a_signal_ends_the_wait_for_what_a_command_left_behind(served: Keeper, server: Guest) -> None:
    client = Client(served, ["sh", "-c", "sleep 1000 & echo on; exit 3"])
    client.until(control.STDOUT)
    server.wait(lambda: server.exits == [3])
    assert served.connection.ping(30)  # answered after the exit code
    client.framed.send(control.SIGNAL, b"INT")
    assert client.end()[0] == {"code": 3}
    assert server.signals == []


def test_unknown_signals_and_frames_are_passed_over(served: Keeper, server: Guest) -> None:
    client = Client(served, ["cat"])
    client.framed.send(control.SIGNAL, b"STOP")
    client.framed.send(b"?", b"")
    client.framed.send(control.STDIN_END)
    assert client.end()[0] == {"code": 0}
    assert server.signals == []


@pytest.mark.parametrize("payload", [b"\xff", b"\0"])
def test_a_frame_that_cannot_be_read_ends_the_client(served: Keeper, server: Guest, payload: bytes) -> None:
    client = Client(served, ["sh", "-c", "echo on; exec sleep 1000"], tty=True)
    client.until(control.STDOUT)
    client.framed.send(control.SIGNAL if payload == b"\xff" else control.WINDOW, payload)
    server.wait(lambda: server.signals == ["KILL"])
    client.framed.close()


def test_a_client_that_dies_takes_its_command_along(served: Keeper, server: Guest) -> None:
    client = Client(served, ["sh", "-c", "echo on; exec sleep 1000"])
    client.until(control.STDOUT)
    client.framed.close()
    server.wait(lambda: server.signals == ["KILL"])
    assert server.processes[0].wait() == -9


def test_a_client_that_dies_while_the_output_waits_for_it(served: Keeper, server: Guest) -> None:
    client = Client(served, ["sh", "-c", "echo on; exec yes"])
    client.until(control.STDOUT)
    client.framed.close()
    server.wait(lambda: server.signals == ["KILL"])


def test_a_terminal_and_its_resize(served: Keeper, server: Guest) -> None:
    client = Client(served, ["sh", "-c", "stty size; read line"], tty=True, rows=11, cols=42, term="vt220")
    assert client.until(control.STDOUT) == b"11 42\r\n"
    client.framed.send(control.WINDOW, struct.pack(">HH", 30, 100))
    server.wait(lambda: server.sizes == [(30, 100)])
    client.framed.send(control.STDIN, b"\n")
    assert client.end()[0] == {"code": 0}
    assert server.terminals == [("vt220", 11, 42)]


def test_a_resize_without_a_terminal_is_nothing(served: Keeper, server: Guest) -> None:
    client = Client(served, ["cat"])
    client.framed.send(control.WINDOW, struct.pack(">HH", 30, 100))
    client.framed.send(control.STDIN_END)
    assert client.end()[0] == {"code": 0}
    assert server.sizes == []


def test_a_lost_connection_is_told(served: Keeper, server: Guest) -> None:
    client = Client(served, ["sh", "-c", "echo on; exec sleep 1000"])
    client.until(control.STDOUT)
    server.drop()
    assert client.end()[0] == {"lost": True, "message": "the connection to the machine ended: how sh ended is unknown."}


def test_an_end_that_the_guest_does_not_tell(served: Keeper, server: Guest) -> None:
    server.tell_exit = False
    end = Client(served, ["true"]).end()[0]
    assert end == {"lost": True, "message": "the machine did not tell the command's end: how true ended is unknown."}


def test_a_signal_that_ended_the_helper_itself(served: Keeper, server: Guest) -> None:
    server.tell_exit = False
    client = Client(served, ["sh", "-c", "echo on; exec sleep 1000"])
    client.until(control.STDOUT)
    client.framed.send(control.SIGNAL, b"TERM")
    assert client.end()[0] == {"code": 143}


def test_what_keeps_a_command_from_starting_is_the_answer(served: Keeper, server: Guest) -> None:
    server.refused.add("exec")
    assert Client(served, ["true"]).end()[0]["error"]["kind"] == "connection-lost"


@pytest.mark.parametrize(
    "request_",
    [{}, {"argv": []}, {"argv": "ls"}, {"argv": ["ls", 1]}, {"argv": ["ls"], "env": {"A": 1}}, {"argv": ["ls"], "cwd": 1}],
)
def test_a_request_that_is_none(request_: dict[str, Any]) -> None:
    with pytest.raises(Usage):
        Exec.parse(request_)


def test_what_a_request_may_leave_out() -> None:
    assert Exec.parse({"argv": ["ls"]}) == Exec(["ls"], {}, None, None, False)
    assert Exec.parse({"argv": ["ls"], "tty": True}).terminal == Terminal("xterm", 24, 80)


# The queue of starts.


@pytest.fixture
def full(server: Guest) -> Iterator[tuple[Keeper, Callable[[], None]]]:
    """A keeper whose one slot is taken, and the call that frees it."""
    slots = StartSlots(1)
    place = slots.enter()
    with keeper(server.connect(), slots) as made:
        yield made, place.leave


def test_a_queued_client_starts_when_its_turn_comes(full: tuple[Keeper, Callable[[], None]], server: Guest) -> None:
    served, free = full
    client = Client(served, ["echo", "in"], client=True)
    assert Client(served, ["echo", "other"]).end()[1] == b"other\n"  # no docker client: not queued
    free()
    assert client.end()[1] == b"in\n"
    assert len(server.processes) == 2


def test_a_signal_ends_a_queued_client(full: tuple[Keeper, Callable[[], None]], server: Guest) -> None:
    client = Client(full[0], ["echo"], client=True)
    client.framed.send(control.SIGNAL, b"INT")
    assert client.end()[0] == {"code": 130}
    assert server.processes == []


def test_a_queued_client_that_goes_leaves_the_queue(full: tuple[Keeper, Callable[[], None]], server: Guest) -> None:
    served, free = full
    gone = Client(served, ["echo", "gone"], client=True)
    gone.framed.stream.shutdown(socket.SHUT_WR)
    assert gone.framed.receive() is None  # it was served to its end
    gone.framed.close()
    free()
    assert Client(served, ["echo", "next"], client=True).end()[1] == b"next\n"
    assert len(server.processes) == 1


def test_the_first_output_gives_the_slot_back(server: Guest) -> None:
    with keeper(server.connect(), StartSlots(1)) as served:
        first = Client(served, ["sh", "-c", "echo on; exec sleep 1000"], client=True)
        first.until(control.STDOUT)
        assert Client(served, ["echo", "second"], client=True).end()[1] == b"second\n"
        first.framed.close()


def test_64_clients_at_once_all_succeed(server: Guest) -> None:
    results: list[Any] = []
    with keeper(server.connect(), StartSlots(2)) as served:
        threads = [
            threading.Thread(target=lambda: results.append(Client(served, ["echo", "in"], client=True).end()))
            for _ in range(64)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [({"code": 0}, b"in\n", b"")] * 64


def test_nothing_is_read_ahead_without_bound(served: Keeper, server: Guest) -> None:
    """A client that stops reading stops the command: what is on the way fits the windows and the sockets' buffers."""
    total = 64 << 20
    client = Client(served, ["head", "-c", str(total), "/dev/zero"])
    first = client.until(control.STDOUT)
    server.wait(lambda: bool(server.processes))

    def written() -> int:
        lines = Path(f"/proc/{server.processes[0].pid}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["wchar"])

    # What moves while others answer 20 requests over the same connection would have moved on.
    for _ in range(20):
        Client(served, ["true"]).end()
    assert written() < 16 << 20
    rest = client.end()[1]
    assert len(first) + len(rest) == total


def test_frames_from_many_threads_do_not_mix() -> None:
    left, right = socket.socketpair()
    sender, receiver = Framed(left), Framed(right)

    def send(kind: bytes) -> None:
        for _ in range(20):
            sender.send(kind, kind * 70_000)

    threads = [threading.Thread(target=send, args=(kind,)) for kind in (b"O", b"E")]
    for thread in threads:
        thread.start()
    for _ in range(40):
        frame = receiver.receive()
        assert frame is not None
        assert frame[1] == frame[0] * 70_000
    for thread in threads:
        thread.join()
    left.close()
    right.close()
