"""Published ports of real containers, through QEMU."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, address: str = "127.0.0.1") -> bytes:
    with socket.create_connection((address, port), timeout=60) as stream:
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
    with ThreadPoolExecutor(200) as pool:
        assert all(GREETING in answer for answer in pool.map(get, [web] * 200))


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


def test_a_new_keeper_has_the_ports_again(client: Client, web: int) -> None:
    machine = client.machine
    os.kill(json.loads(next(machine.path.glob("home/machines/*/state.json")).read_text())["keeper_pid"], signal.SIGKILL)
    machine.up()
    machine.wait_until(lambda: bool(listening(web)), "the port is back", 60)
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


def test_every_first_request_is_answered(client: Client) -> None:
    for _ in range(100 if SOAK else 3):
        name = client("run", "-d", "-p", "0:80", *HTTPD).strip()
        port = int(client("port", name, "80").splitlines()[0].rpartition(":")[2])
        assert GREETING in get(port)
        client("rm", "-f", name)
