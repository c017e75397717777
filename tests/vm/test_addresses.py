"""Ports that nobody named, and addresses that the guest does not have: real containers, seen by docker's own client."""

from __future__ import annotations

import json
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from launcher.keeper.ports.aliases import PORT
from launcher.keeper.ports.bindings import CHOSEN_FROM
from tests.loopback import free_port
from tests.vm.client import Client
from tests.vm.driver import SOAK, Driver
from tests.vm.test_ports import GREETING, HELLO, HTTPD, get, listening

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def client(machine: Driver) -> Client:
    return Client(machine)


def own_address() -> str | None:
    """An IPv4 address of this computer that is not its loopback."""
    found = (one.address for each in psutil.net_if_addrs().values() for one in each if one.family == socket.AF_INET)
    return next((address for address in found if not address.startswith("127.")), None)


def published(client: Client, name: str) -> list[tuple[str, int]]:
    return [
        (line.rpartition(":")[0].strip("[]"), int(line.rpartition(":")[2])) for line in client("port", name, "80").splitlines()
    ]


def inspect(client: Client, name: str) -> Any:
    return json.loads(client("inspect", name))[0]


def test_one_port_on_several_addresses(client: Client) -> None:
    """A container for each; the guest has 127.0.0.1 alone of these."""
    port = free_port()
    addresses = ["", "127.0.0.2", *([own] if (own := own_address()) else [])]
    names = [f"several{number}" for number in range(len(addresses))]
    try:
        for name, address in zip(names, addresses, strict=True):
            client("run", "-d", "--name", name, "-p", f"{address}:{port}:80" if address else f"{port}:80", *HTTPD)
            assert GREETING in get(port, address or "127.0.0.1")
        assert listening(port) == {"127.0.0.1", "::1", *addresses[1:]}
        for name, address in zip(names[1:], addresses[1:], strict=True):
            assert published(client, name) == [(address, port)]
            assert inspect(client, name)["HostConfig"]["PortBindings"] == {
                "80/tcp": [{"HostIp": address, "HostPort": str(port)}]
            }
            assert client("ps", "--filter", f"name={name}", "--format", "{{.Ports}}") == f"{address}:{port}->80/tcp\n"
    finally:
        client("rm", "-f", *names)


def test_ipv6_alone(client: Client) -> None:
    port = free_port()
    client("run", "-d", "--name", "six", "-p", f"[::1]:{port}:80", *HTTPD)
    try:
        assert GREETING in get(port, "::1")
        assert listening(port) == {"::1"}
        assert published(client, "six") == [("::1", port)]
        client("restart", "-t", "0", "six")
        assert GREETING in get(port, "::1")
    finally:
        client("rm", "-f", "six")


@pytest.mark.parametrize("port", [22, 53, PORT])
def test_ports_that_the_guest_has_itself(client: Client, port: int) -> None:
    """On an address of 127.0.0.0/8, since this computer may have a server on the others."""
    client("run", "-d", "--name", "own", "-p", f"127.0.0.3:{port}:80", *HTTPD)
    try:
        assert GREETING in get(port, "127.0.0.3")
        assert published(client, "own") == [("127.0.0.3", port)]
    finally:
        client("rm", "-f", "own")


def test_all_ports_of_many_at_once(client: Client) -> None:
    names = [f"many{number}" for number in range(10 if SOAK else 4)]

    def run(name: str) -> subprocess.CompletedProcess[bytes]:
        return client.run("run", "-d", "--name", name, "--expose", "80", "-P", *HTTPD)

    try:
        with ThreadPoolExecutor(len(names)) as pool:
            assert [done.stderr for done in pool.map(run, names) if done.returncode] == []
        ports = [published(client, name)[0][1] for name in names]
        assert len(set(ports)) == len(names) and set(ports) <= set(CHOSEN_FROM)
        assert all(GREETING in get(port) for port in ports)
    finally:
        client("rm", "-f", *names)


def test_a_port_that_was_chosen_and_is_taken_is_chosen_anew(client: Client) -> None:
    client("run", "-d", "--name", "anew", "-p", "80", *HTTPD)
    try:
        port = published(client, "anew")[0][1]
        assert GREETING in get(port)  # the server ends it first, so the connection lingers here
        client("restart", "-t", "0", "anew")
        client("stop", "-t", "0", "anew")
        client("start", "anew")
        assert published(client, "anew")[0][1] == port
        client("stop", "-t", "0", "anew")
        client.machine.wait_until(lambda: not listening(port), "the port is free")
        with socket.create_server(("127.0.0.1", port)):
            client("start", "anew")
            now = published(client, "anew")[0][1]
            assert now != port
            assert GREETING in get(now)
            assert f":{now}->80/tcp" in client("ps", "--filter", "name=anew", "--format", "{{.Ports}}")
    finally:
        client("rm", "-f", "anew")


def test_a_range(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        client("run", "-d", "--name", "range", "-p", f"{taken}-{taken + 5}:80", *HTTPD)
        try:
            port = published(client, "range")[0][1]
            assert taken < port <= taken + 5
            assert GREETING in get(port)
        finally:
            client("rm", "-f", "range")


def test_compose_with_a_taken_port(client: Client) -> None:
    """The project's file names a port that is taken: said by name, and nothing runs."""
    folder = client.machine.path / "taken"
    folder.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        service = {"image": HELLO, "command": list(HTTPD[1:]), "ports": [f"{port}:80"]}
        (folder / "compose.yaml").write_text(json.dumps({"services": {"web": service}}))
        done = client.run("compose", "up", "-d", cwd=folder)
        assert done.returncode != 0
        assert f"port 127.0.0.1:{port}/tcp is in use by" in done.stderr.decode()
        assert client("compose", "ps", "-q", "--status", "running", cwd=folder) == ""
    client("compose", "down", cwd=folder)


@pytest.mark.parametrize("which", ["guest", "auto"])
def test_run_with_a_taken_port(client: Client, which: str) -> None:
    before = client("ps", "-aq")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = client.machine.wherry("run", "--rm", "-p", f"{port}:80", HELLO, "true", env={"WHERRY_CLIENT": which})
    assert done.returncode == 125
    assert f"port 127.0.0.1:{port}/tcp is in use by" in done.stderr.decode()
    assert client("ps", "-aq") == before
