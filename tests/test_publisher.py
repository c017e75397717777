"""launcher.keeper.events and the ports of containers: over a real SSH connection, from an engine that only keeps its books."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paramiko import Channel

from launcher.keeper.events import Events
from launcher.keeper.health import Health
from launcher.keeper.link import Link
from launcher.keeper.ports.service import PortService
from launcher.keeper.proxy.server import EngineProxy
from launcher.qemu.qmp import Qmp
from launcher.ssh.transport import Connection
from launcher.state import State
from launcher.store import MachineDir
from tests.dockerd import Dockerd, dockerd
from tests.guestserver import Guest, guest
from tests.loopback import free_port, listens, until

ID, OTHER = "a" * 64, "b" * 64


class Keeper:
    def __init__(self, machine: Guest) -> None:
        self.directory: MachineDir = machine.machine
        self.link = Link(machine.connect)
        self.health = Health()
        self.state = State()

    def wait_ready(self, seconds: float | None = None) -> None: ...

    def open(self, make: Callable[[Connection], Channel]) -> Channel:
        return self.link.open(make)

    def connection(self) -> Connection:
        return self.link.get()

    def monitor(self) -> Qmp | None:
        return None


class Setup:
    def __init__(self, machine: Guest, books: Dockerd) -> None:
        self.dockerd = books
        self.keeper = Keeper(machine)
        self.events = Events()
        self.ports = PortService(self.keeper, self.events)
        self.keeper.link.subscribe(self.events.connected)
        self.proxy = EngineProxy(self.keeper, self.ports.publisher)
        self.proxy.start()

    def connect(self) -> None:
        self.keeper.link.get()
        until(lambda: len(self.dockerd.listeners) == 1)

    def post(self, path: str) -> tuple[int, Any]:
        made = http.client.HTTPConnection("docker", timeout=30)
        made.sock = socket.socket(socket.AF_UNIX)
        made.sock.connect(str(self.keeper.directory.engine_socket))
        made.request("POST", path)
        with made.getresponse() as answer:
            body = answer.read()
        made.close()
        return answer.status, json.loads(body) if body else None

    def ports_of(self, name: str) -> list[tuple[int, str]]:
        return [(entry["port"], entry["state"]) for entry in self.ports.holders.listing() if entry["container"] == name]

    def close(self) -> None:
        self.events.close()
        self.proxy.close()
        self.keeper.link.drop()
        self.ports.close()


@contextlib.contextmanager
def keeper_with_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    """Not connected yet."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with guest(tmp_path) as machine, dockerd(tmp_path / "books.sock") as books:
        machine.engine = books.path
        made = Setup(machine, books)
        yield made
        made.close()


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    with keeper_with_ports(tmp_path, monkeypatch) as made:
        yield made


def publish(setup: Setup, identity: str, port: int, **settings: Any) -> None:
    setup.dockerd.add(identity, {"80/tcp": [{"HostIp": "", "HostPort": str(port)}]}, **settings)


@pytest.mark.parametrize("path", ["/containers/{}/start", "/v1.51//containers/{}/st%61rt", "/containers/{}/restart"])
@pytest.mark.parametrize("reference", [ID, f"name-{ID}"])
def test_the_port_is_there_before_the_engine_starts(setup: Setup, path: str, reference: str) -> None:
    setup.connect()
    port = free_port()
    publish(setup, ID, port)
    found: list[bool] = []
    set_running = setup.dockerd.set_running

    def look(identity: str, running: bool) -> None:
        found.append(listens(port))
        set_running(identity, running)

    setup.dockerd.set_running = look  # type: ignore[method-assign]
    assert setup.post(path.format(reference)) == (204, None)
    assert found == [True]
    setup.dockerd.set_running = set_running  # type: ignore[method-assign]
    setup.dockerd.set_running(ID, False)
    until(lambda: not listens(port))


@pytest.mark.parametrize("auto_remove", [True, False])
def test_a_taken_port_is_said_and_nothing_is_started(setup: Setup, auto_remove: bool) -> None:
    setup.connect()
    first = free_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        second = other.getsockname()[1]
        wanted = [{"HostPort": str(first)}, {"HostPort": str(second)}]
        setup.dockerd.add(ID, {"80/tcp": wanted}, AutoRemove=auto_remove)
        status, said = setup.post(f"/containers/{ID}/start")
    assert status == 500
    assert f"port 127.0.0.1:{second}/tcp is in use by " in said["message"]
    assert "; the container was not started.\n        Free it, or publish another: -p " in said["message"]
    assert not any(call.startswith("POST") for call in setup.dockerd.calls)
    assert (ID in setup.dockerd.containers) is not auto_remove
    assert not listens(first)
    assert setup.ports.holders.listing() == []


def test_a_start_that_the_engine_refuses_frees_the_ports(setup: Setup) -> None:
    setup.connect()
    port = free_port()
    publish(setup, ID, port)
    setup.dockerd.fails = True
    assert setup.post(f"/containers/{ID}/start")[0] == 500
    until(lambda: not listens(port))


def test_what_the_engine_does_not_know_it_says_itself(setup: Setup) -> None:
    assert setup.post("/containers/nobody/start") == (404, {"message": "no such container"})


def test_containers_that_run_already_are_found(setup: Setup) -> None:
    ports = free_port(), free_port()
    for identity, port in zip((ID, OTHER), ports, strict=True):
        publish(setup, identity, port)
    setup.dockerd.set_running(ID, True)
    setup.connect()
    until(lambda: listens(ports[0]))
    assert not listens(ports[1])
    setup.dockerd.set_running(OTHER, True)  # by a restart policy: no request of a client's
    until(lambda: listens(ports[1]))
    setup.dockerd.remove(OTHER)
    until(lambda: not listens(ports[1]))
    assert setup.keeper.health.to_json()["parts"]["ports"] == {"state": "ok", "detail": "1"}


@pytest.mark.parametrize("how", ["events", "connection"])
def test_what_happened_while_nobody_listened_is_found(setup: Setup, how: str) -> None:
    setup.connect()
    ports = free_port(), free_port()
    for identity, port in zip((ID, OTHER), ports, strict=True):
        publish(setup, identity, port)
    setup.dockerd.set_running(ID, True)
    until(lambda: listens(ports[0]))
    listeners = setup.dockerd.listeners
    setup.dockerd.listeners = []
    setup.dockerd.set_running(ID, False)
    setup.dockerd.set_running(OTHER, True)
    for listener in listeners:  # the engine restarted, or the connection broke
        listener.put(None)
    if how == "connection":
        setup.keeper.link.drop()
        setup.keeper.link.get()
    until(lambda: listens(ports[1]) and not listens(ports[0]))


def test_a_conflict_that_no_request_can_be_told_is_in_the_list(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.keeper.ports.holders.RETRY_SECONDS", 0.05)
    setup.connect()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        publish(setup, ID, port)
        setup.dockerd.set_running(ID, True)
        until(lambda: bool(setup.ports_of(f"name-{ID}")))
        assert all("taken by" in state for _, state in setup.ports_of(f"name-{ID}"))
        until(lambda: setup.keeper.health.state("ports") == "failed")
    until(lambda: {state for _, state in setup.ports_of(f"name-{ID}")} == {"ok"})
    until(lambda: setup.keeper.health.state("ports") == "ok")


def test_ports_of_services(setup: Setup) -> None:
    port = free_port()
    setup.dockerd.services = [
        {
            "ID": "s1",
            "Spec": {"Name": "web"},
            "Endpoint": {"Ports": [{"Protocol": "tcp", "PublishedPort": port, "PublishMode": "ingress"}]},
        }
    ]
    setup.connect()
    until(lambda: listens(port))
    setup.dockerd.services = []
    for listener in setup.dockerd.listeners:
        listener.put({"Type": "service", "Action": "remove", "Actor": {"ID": "s1"}})
    until(lambda: not listens(port))


def test_a_restart_keeps_the_port(setup: Setup) -> None:
    """A container's end and its new start come as events while the request is under way."""
    setup.connect()
    port = free_port()
    publish(setup, ID, port)
    setup.post(f"/containers/{ID}/start")
    gaps: list[bool] = []
    set_running = setup.dockerd.set_running

    def restart(identity: str, _running: bool) -> None:
        set_running(identity, False)
        time.sleep(0.2)  # in which the event is heard
        gaps.append(listens(port))
        set_running(identity, True)

    setup.dockerd.set_running = restart  # type: ignore[method-assign]
    assert setup.post(f"/containers/{ID}/restart")[0] == 204
    assert gaps == [True]
    until(lambda: setup.ports_of(f"name-{ID}") == [(port, "ok"), (port, "ok")])
    assert listens(port)
