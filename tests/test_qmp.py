"""The monitor client, against a small server that misbehaves and against a real QEMU."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import ConnectionLost, NoProgress, WherryError
from launcher.qemu import qmp
from launcher.qemu.qmp import Pipes, Qmp

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": ["oob"]}}
USERNET = """\
Hub -1 (net0):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[ESTABLISHED]   17       127.0.0.1 40911       10.0.2.15    22     0     0\r
  UDP[HOST_FORWARD]  14       127.0.0.1 40001       10.0.2.15    22     0     0\r
  TCP[HOST_FORWARD]  13       127.0.0.1 40002       10.0.2.15  2222     0     0\r
  TCP[HOST_FORWARD]  12       127.0.0.1 40911       10.0.2.15    22     0     0\r
"""

Answer = Callable[[dict[str, Any]], bytes]


def line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


def value(request: dict[str, Any], result: Any = None) -> bytes:
    return line({"return": {} if result is None else result, "id": request["id"]})


class Server:
    """QEMU's side: greets, answers `qmp_capabilities`, gives every other request to `answer`; None of it ends the stream."""

    def __init__(self, answer: Answer, greeting: bytes = line(GREETING)) -> None:
        self.client, self.stream = socket.socketpair()
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.stream.sendall(greeting)
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        # A client that closes while it is answered is one of the tests.
        with contextlib.suppress(ConnectionError), self.stream, self.stream.makefile("rb") as lines:
            for text in lines:
                request = json.loads(text)
                if request["execute"] == "qmp_capabilities":
                    self.stream.sendall(value(request))
                    continue
                self.requests.append(request)
                data = self.answer(request)
                if data == b"":
                    self.stream.shutdown(socket.SHUT_RDWR)
                    return
                self.stream.sendall(data)


Serve = Callable[..., tuple[Qmp, Server]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[tuple[Qmp, Server]] = []

    def make(answer: Answer = value, greeting: bytes = line(GREETING)) -> tuple[Qmp, Server]:
        server = Server(answer, greeting)
        made.append((Qmp(server.client), server))
        return made[-1]

    yield make
    for client, server in made:
        client.close()
        server.thread.join()


def ignore(_name: str, _data: dict[str, Any]) -> None: ...


def test_a_value_and_the_arguments_that_asked_for_it(serve: Serve) -> None:
    client, server = serve(lambda request: value(request, {"status": "running"}))
    client.start(ignore)
    assert client.execute("query-status", some=1) == {"status": "running"}
    assert [(request["execute"], request["arguments"]) for request in server.requests] == [("query-status", {"some": 1})]


def test_a_refusal_has_qemus_words(serve: Serve) -> None:
    client, _ = serve(lambda request: line({"error": {"class": "GenericError", "desc": "no such thing"}, "id": request["id"]}))
    client.start(ignore)
    with pytest.raises(WherryError, match=r"QEMU refused cont: no such thing\.$") as caught:
        client.execute("cont")
    assert caught.value.hint == "wherry logs qemu"


def test_a_refusal_that_ends_with_a_full_stop_gets_no_other_one(serve: Serve) -> None:
    client, _ = serve(lambda request: line({"error": {"desc": "no such thing."}, "id": request["id"]}))
    client.start(ignore)
    with pytest.raises(WherryError, match=r"no such thing\.$"):
        client.execute("cont")


def test_events_arrive_in_order_and_do_not_disturb_the_reply(serve: Serve) -> None:
    def answer(request: dict[str, Any]) -> bytes:
        return line({"event": "STOP"}) + value(request, 1) + line({"event": "SHUTDOWN", "data": {"guest": True}})

    client, _ = serve(answer)
    seen: list[tuple[str, dict[str, Any]]] = []
    both = threading.Event()

    def on_event(name: str, data: dict[str, Any]) -> None:
        seen.append((name, data))
        if len(seen) == 2:
            both.set()

    client.start(on_event)
    assert client.execute("stop") == 1
    assert both.wait(30)
    assert seen == [("STOP", {}), ("SHUTDOWN", {"guest": True})]


def test_an_event_function_that_fails_does_not_end_the_client(serve: Serve) -> None:
    client, _ = serve(lambda request: line({"event": "STOP"}) + value(request, 1))

    def on_event(_name: str, _data: dict[str, Any]) -> None:
        raise ValueError("broken")

    client.start(on_event)
    assert client.execute("stop") == 1
    assert client.execute("stop") == 1


def test_execute_in_an_event_function_is_refused_instead_of_waiting_for_ever(serve: Serve) -> None:
    client, _ = serve(lambda request: line({"event": "STOP"}) + value(request, 1))
    refused: list[str] = []

    def on_event(_name: str, _data: dict[str, Any]) -> None:
        with pytest.raises(RuntimeError, match="wait for itself"):
            client.execute("cont")
        refused.append("yes")

    client.start(on_event)
    client.execute("stop")
    assert refused == ["yes"]


def test_garbage_foreign_ids_and_other_json_are_dropped(serve: Serve) -> None:
    def answer(request: dict[str, Any]) -> bytes:
        noise = b'warning: \xff\xfe\n\n[1]\n"text"\n' + line({"return": "stale", "id": 999}) + line({"return": "no id"})
        return noise + value(request, "mine")

    client, _ = serve(answer)
    client.start(ignore)
    assert client.execute("query-status") == "mine"


def test_replies_find_their_thread_in_any_order(serve: Serve) -> None:
    held: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> bytes:
        held.append(request)
        if len(held) < 4:
            return b"\n"
        return b"".join(value(old, old["arguments"]["number"]) for old in reversed(held))

    client, _ = serve(answer)
    client.start(ignore)
    results: dict[int, Any] = {}

    def ask(number: int) -> None:
        results[number] = client.execute("echo", number=number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {0: 0, 1: 1, 2: 2, 3: 3}


def test_a_reply_after_the_timeout_is_not_taken_for_the_next_one(serve: Serve) -> None:
    late: list[bytes] = []

    def answer(request: dict[str, Any]) -> bytes:
        if request["execute"] == "slow":
            late.append(value(request, "late"))
            return b"\n"
        return late.pop() + value(request, "now")

    client, _ = serve(answer)
    client.start(ignore)
    with pytest.raises(NoProgress, match="an answer to slow within"):
        client.execute("slow", timeout=0.05)
    assert client.execute("fast") == "now"


def test_a_reply_in_many_pieces(serve: Serve) -> None:
    client, server = serve(lambda request: b"\n")
    client.start(ignore)

    def answer(request: dict[str, Any]) -> bytes:
        for byte in value(request, "pieces"):
            server.stream.sendall(bytes([byte]))
        return b"\n"

    server.answer = answer
    assert client.execute("query-status") == "pieces"


@pytest.mark.parametrize("before", [b"", b'{"return": {}, "id'], ids=["clean", "half a line"])
def test_the_end_of_the_stream_wakes_all_who_wait(serve: Serve, before: bytes) -> None:
    client, server = serve(lambda request: b"")
    ended = threading.Event()
    client.start(ignore, on_end=ended.set)
    server.stream.sendall(before or b"\n")
    with pytest.raises(ConnectionLost):
        client.execute("quit")
    assert ended.wait(30)
    with pytest.raises(ConnectionLost):
        client.execute("query-status")


def test_close_ends_a_waiting_execute_of_another_thread(serve: Serve) -> None:
    asked = threading.Event()

    def answer(_request: dict[str, Any]) -> bytes:
        asked.set()
        return b"\n"

    client, _ = serve(answer)
    client.start(ignore)
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            client.execute("query-status")
        except ConnectionLost as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(30)
    client.close()
    thread.join()
    assert len(caught) == 1


def test_a_server_that_does_not_greet_is_not_waited_for_for_ever(serve: Serve) -> None:
    client, _ = serve(greeting=b"HTTP/1.1 400\r\n")
    with pytest.raises(NoProgress, match="greeting"):
        client.start(ignore, timeout=0.05)


def test_a_server_that_closes_at_once() -> None:
    near, far = socket.socketpair()
    far.close()
    client = Qmp(near)
    with pytest.raises(ConnectionLost):
        client.start(ignore)
    client.close()


def test_ssh_port_is_that_of_the_tcp_forward_to_port_22(serve: Serve) -> None:
    client, server = serve(lambda request: value(request, USERNET))
    client.start(ignore)
    assert qmp.ssh_port(client) == 40911
    assert server.requests[0]["arguments"] == {"command-line": "info usernet"}


def test_ssh_port_says_what_qemu_said_when_there_is_none(serve: Serve) -> None:
    client, _ = serve(lambda request: value(request, "Hub -1 (net0):\r\n"))
    client.start(ignore)
    with pytest.raises(WherryError) as caught:
        qmp.ssh_port(client)
    assert caught.value.detail == "Hub -1 (net0):"


@pytest.mark.parametrize(
    ("arch", "command", "arguments"),
    [
        ("amd64", "system_powerdown", {}),
        ("arm64", "send-key", {"keys": [{"type": "qcode", "data": "power"}]}),
    ],
)
def test_power_button(serve: Serve, arch: str, command: str, arguments: dict[str, Any]) -> None:
    client, server = serve()
    client.start(ignore)
    qmp.power_button(client, arch)
    assert [(request["execute"], request["arguments"]) for request in server.requests] == [(command, arguments)]


REAL = shutil.which("qemu-system-x86_64")


@pytest.mark.skipif(REAL is None, reason="no QEMU here")
def test_a_real_qemu_on_its_standard_streams_tells_its_port_and_quits() -> None:
    assert REAL is not None
    data = Path(REAL).parent / "share/qemu"  # of a wheel's, which does not find it
    words = [
        *(["-L", str(data)] if data.is_dir() else []),
        "-nodefaults", "-display", "none", "-S",
        "-machine", "q35", "-accel", "tcg", "-m", "64",
        "-netdev", "user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22",
        "-device", "virtio-net-pci,netdev=net0,romfile=",
        "-chardev", "stdio,id=qmp,signal=off", "-mon", "chardev=qmp,mode=control",
    ]  # fmt: skip
    with subprocess.Popen([REAL, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            client = Qmp(Pipes(process.stdout, process.stdin))
            events: list[str] = []
            ended = threading.Event()
            client.start(lambda name, _data: events.append(name), on_end=ended.set)
            assert client.execute("query-status")["status"] == "prelaunch"
            with pytest.raises(WherryError, match="The command no-such-command has not been found"):
                client.execute("no-such-command")
            port = qmp.ssh_port(client)
            with socket.create_connection(("127.0.0.1", port)):
                pass
            client.execute("quit")
            assert ended.wait(60)
            assert events == ["SHUTDOWN"]
            client.close()
            assert process.wait(60) == 0
        finally:
            process.kill()
