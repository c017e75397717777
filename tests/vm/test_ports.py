"""Published ports of real containers, through QEMU."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.guest.helpers import compiler
from tests.loopback import free_port
from tests.vm.client import Client
from tests.vm.driver import SOAK, Driver

pytestmark = pytest.mark.vm
HELLO = "wherry.internal/hello"
HTTPD = (HELLO, "httpd", "-f", "-p", "80", "-h", "/www")
GREETING = b"Hello from Wherry."


@pytest.fixture(scope="module")
def client(machine: Driver) -> Client:
    return Client(machine)


@pytest.fixture
def web(client: Client) -> Iterator[int]:
    port = free_port()
    client("run", "-d", "--name", "web", "-p", f"{port}:80", *HTTPD)
    yield port
    client("rm", "-f", "web")


@pytest.fixture
def echo(client: Client) -> Iterator[str]:
    """An image whose `echo FIRST LAST` answers datagrams; the busybox of the hello image knows no UDP."""
    folder = client.machine.path / "echo"
    folder.mkdir()
    source = Path(__file__).with_name("echo.c")
    subprocess.run([compiler(), "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", folder / "echo", source], check=True)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY echo /bin/echo\n")
    client("build", "-q", "-t", "wherry.test/echo", str(folder))
    yield "wherry.test/echo"
    client("rmi", "-f", "wherry.test/echo")


def free_udp_ports(count: int) -> int:
    """The first of so many in a row."""
    for _ in range(100):
        first = free_port()
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            for port in range(first, first + count):
                probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                probe.bind(("127.0.0.1", port))
            return first
    raise AssertionError(f"no {count} ports in a row are free")


def get(port: int, address: str = "127.0.0.1", patience: float = 60) -> bytes:
    with socket.create_connection((address, port), timeout=patience) as stream:
        stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
        got = b""
        while data := stream.recv(65536):
            got += data
        return got


def listening(port: int) -> set[str]:
    found = psutil.net_connections("inet")
    return {one.laddr.ip for one in found if one.laddr and one.laddr.port == port and one.status == psutil.CONN_LISTEN}


def test_a_port_is_there_when_run_returns_and_goes_with_its_container(client: Client, web: int) -> None:
    assert GREETING in get(web)
    assert GREETING in get(web, "::1")
    assert listening(web) == {"127.0.0.1", "::1"}
    client("restart", "-t", "0", "web")
    assert GREETING in get(web)
    client("stop", "-t", "0", "web")
    client.machine.wait_until(lambda: not listening(web), "the port is free")
    client("start", "web")
    assert GREETING in get(web)


def test_two_hundred_at_once(web: int) -> None:
    def timed(port: int) -> float:
        began = time.perf_counter()
        assert GREETING in get(port, patience=300)
        return time.perf_counter() - began

    slowest = []
    for _ in range(5 if SOAK else 1):
        with ThreadPoolExecutor(200) as pool:
            slowest.append(max(pool.map(timed, [web] * 200)))
        print(f"200 at once: the slowest after {slowest[-1]:.2f} s")
    if SOAK:  # on a quiet computer
        assert statistics.median(slowest) <= 2


def test_localhost_alone(client: Client) -> None:
    port = free_port()
    client("run", "-d", "--name", "local", "-p", f"127.0.0.1:{port}:80", *HTTPD)
    try:
        assert GREETING in get(port)
        assert listening(port) == {"127.0.0.1"}
        assert client("port", "local", "80") == f"127.0.0.1:{port}\n"
    finally:
        client("rm", "-f", "local")


def test_a_taken_port(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        before = client("ps", "-aq")
        done = client.run("run", "--rm", "-p", f"{port}:80", HELLO, "true", timeout=60)
    assert done.returncode == 125
    owner = f"{psutil.Process().name()} (pid {os.getpid()})"
    assert f"port 127.0.0.1:{port}/tcp is in use by {owner}; the container was not started." in done.stderr.decode()
    assert client("ps", "-aq") == before


@pytest.mark.skipif(not SOAK, reason="how fast, which a busy computer is not")
def test_a_taken_port_is_said_soon(client: Client) -> None:
    took = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        for _ in range(5):
            began = time.perf_counter()
            done = client.run("run", "--rm", "-p", f"{other.getsockname()[1]}:80", HELLO, "true", timeout=60)
            took.append(time.perf_counter() - began)
            assert done.returncode == 125, done.stderr.decode()
    print(f"a taken port is said after {', '.join(f'{one:.2f}' for one in took)} s")
    assert statistics.median(took) <= 2


def test_a_new_keeper_has_the_ports_again(client: Client, web: int) -> None:
    machine = client.machine
    os.kill(json.loads(next(machine.path.glob("home/machines/*/state.json")).read_text())["keeper_pid"], signal.SIGKILL)
    machine.up()
    machine.wait_until(lambda: bool(listening(web)), "the port is back")
    assert GREETING in get(web)


def test_forwards_by_hand(client: Client, web: int) -> None:
    machine = client.machine
    port = free_port()
    assert machine.wherry("port", "add", f"{port}:{web}").returncode == 0
    assert GREETING in get(port)
    listed = json.loads(machine.wherry("port", "list", "--json").stdout)["data"]
    assert {(one["container"], one["port"], one["state"]) for one in listed} == {("web", web, "ok"), ("", port, "ok")}
    assert machine.wherry("port", "remove", f"{port}:{web}").returncode == 0
    assert not listening(port)


def test_a_forward_to_what_is_on_the_machines_loopback_only(client: Client) -> None:
    machine = client.machine
    port, inside = free_port(), 4080
    forward = f"{port}:127.0.0.1:{inside}"
    client("run", "-d", "--name", "inner", "--network", "host", HELLO, "httpd", "-f", "-p", f"127.0.0.1:{inside}", "-h", "/www")
    try:
        machine.wait_until(lambda: f"127.0.0.1:{inside}" in machine.ssh("netstat -ltn"), "the server listens")
        assert machine.wherry("port", "add", forward).returncode == 0
        assert GREETING in get(port)
        assert machine.wherry("port", "remove", forward).returncode == 0
    finally:
        client("rm", "-f", "inner")


def asked(client: Client, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """One request to the engine, without a program in between."""
    made = http.client.HTTPConnection("docker", timeout=120)
    made.sock = socket.socket(socket.AF_UNIX)
    made.sock.connect(str(client.socket))
    with contextlib.closing(made):
        text = json.dumps(body).encode() if body is not None else None
        made.request(method, path, body=text, headers={"Content-Type": "application/json"})
        with made.getresponse() as answer:
            got = answer.read()
    return answer.status, json.loads(got) if got else None


ROUNDS = 100 if SOAK else 5


def test_the_first_request_after_a_start_is_answered(client: Client) -> None:
    """On the engine's word that it has started; nothing comes between that and the request."""
    for _ in range(ROUNDS):
        port = free_port()
        settings = {"PortBindings": {"80/tcp": [{"HostPort": str(port)}]}}
        described = {"Image": HELLO, "Cmd": HTTPD[1:], "ExposedPorts": {"80/tcp": {}}, "HostConfig": settings}
        status, made = asked(client, "POST", "/containers/create", described)
        assert status == 201, made
        _, found = asked(client, "GET", f"/containers/{made['Id']}/json")
        port = int(found["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"])
        status, said = asked(client, "POST", f"/containers/{made['Id']}/start")
        assert status == 204, said
        assert GREETING in get(port)
        assert asked(client, "DELETE", f"/containers/{made['Id']}?force=1")[0] == 204


def test_the_first_request_after_run_is_answered(client: Client) -> None:
    for _ in range(ROUNDS):
        port = free_port()
        name = client("run", "-d", "-p", f"{port}:80", *HTTPD).strip()
        assert GREETING in get(port)
        client("rm", "-f", name)


@contextlib.contextmanager
def dialogue(address: str, port: int) -> Iterator[Callable[[bytes], bytes]]:
    """Of one peer: sends a datagram and waits for the answer, once the server has answered at all."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as stream:
        stream.connect((address, port))

        def say(data: bytes) -> bytes:
            stream.send(data)
            while (got := stream.recv(65536)).endswith(b"there?"):
                pass  # a late answer to what was asked again
            return got

        stream.settimeout(1)
        for _ in range(60):  # docker run returns before the server has its socket, and UDP asks again
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                stream.send(b"there?")
                stream.recv(65536)
                break
        stream.settimeout(60)
        yield say


def test_datagrams_find_their_way_and_back(client: Client, echo: str) -> None:
    first, alone = free_udp_ports(4), free_udp_ports(1)
    ranged = f"{first}-{first + 3}:7000-7003/udp"
    client("run", "-d", "--name", "echo", "-p", ranged, "-p", f"127.0.0.1:{alone}:7009/udp", echo, "echo", "7000", "7009")
    places = [(7000 + number, address, first + number) for number in range(4) for address in ("127.0.0.1", "::1")]
    places.append((7009, "127.0.0.1", alone))
    try:
        with contextlib.ExitStack() as stack:
            peers = [(inside, stack.enter_context(dialogue(address, port))) for inside, address, port in places]
            for number, (inside, say) in enumerate(peers * 10):
                assert say(b"%d" % number) == b"%d %d" % (inside, number)
            large = bytes(range(256)) * 32
            assert peers[0][1](large) == b"7000 " + large
    finally:
        client("rm", "-f", "echo")
    ports = {*range(first, first + 4), alone}

    def free() -> bool:
        return not ports & {one.laddr.port for one in psutil.net_connections("udp") if one.laddr}

    client.machine.wait_until(free, "the ports are free")
