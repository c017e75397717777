"""Ports of swarm services: the routing mesh publishes them on every node, so on this computer too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.loopback import free_port
from tests.vm.client import Client
from tests.vm.driver import Driver
from tests.vm.test_ports import GREETING, HTTPD, get, listening

pytestmark = pytest.mark.vm


@pytest.fixture
def swarm(machine: Driver) -> Iterator[Client]:
    client = Client(machine)
    client("swarm", "init", "--advertise-addr", "eth0")
    try:
        yield client
    finally:
        client.run("swarm", "leave", "--force")


def serve(client: Client, name: str, *words: str) -> int:
    port = free_port()
    client("service", "create", "-q", "--no-resolve-image", "--name", name, "-p", f"{port}:80", *words, *HTTPD)
    return port


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return GREETING in get(port)
    return False


def test_a_service_has_its_port_as_long_as_it_is_there(swarm: Client) -> None:
    machine = swarm.machine
    port = serve(swarm, "web")
    machine.wait_until(lambda: answers(port), "the service answers")
    assert listening(port) == {"127.0.0.1", "::1"}
    swarm("service", "rm", "web")
    machine.wait_until(lambda: not listening(port), "the port is free")
    port, idle = serve(swarm, "web"), serve(swarm, "idle", "--replicas", "0")
    machine.wait_until(lambda: answers(port) and bool(listening(idle)), "both are there")
    swarm("swarm", "leave", "--force")  # of which no event tells but the end of its tasks
    machine.wait_until(lambda: not listening(port) and not listening(idle), "both ports are free")
