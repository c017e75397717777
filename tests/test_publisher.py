"""launcher.keeper.events and the ports of containers: over a real SSH connection, from an engine that only keeps its books."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paramiko import Channel

from launcher.keeper.events import Events
from launcher.keeper.health import Health
from launcher.keeper.identified import Parts
from launcher.keeper.link import Link
from launcher.keeper.ports.service import PortService
from launcher.keeper.ports.sockets import Taken
from launcher.keeper.proxy.server import EngineProxy
from launcher.qemu.qmp import Qmp
from launcher.ssh.transport import Connection
from launcher.state import State
from launcher.store import MachineDir
from tests.dockerd import Dockerd, dockerd
from tests.guestserver import Guest, guest
from tests.loopback import free_port, listens, until

ID, OTHER, LAST = "a" * 64, "b" * 64, "c" * 64
TASK = {"com.docker.swarm.service.id": "s1"}


class Keeper:
    def __init__(self, machine: Guest) -> None:
        self.directory: MachineDir = machine.machine
        self.link = Link(machine.connect)
        self.health = Health()
        self.parts = Parts()
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

    def served(self, identity: str) -> list[Any]:
        """What serves its ports: others when they were closed in between."""
        return list(self.ports.holders._holders[identity].ports.values())

    def hear(self) -> None:
        """All events until now."""
        port = free_port()
        publish(self, LAST, port)
        self.dockerd.set_running(LAST, True)
        until(lambda: listens(port))

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
    made.keeper.link.drop()  # whoever asked meanwhile has made it again: nobody is to go on trying


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
    until(lambda: setup.keeper.health.to_json()["parts"]["ports"] == {"state": "ok", "detail": "1"})


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


def service(setup: Setup) -> int:
    """The port of one that is found when the keeper connects."""
    port = free_port()
    ports = [{"Protocol": "tcp", "PublishedPort": port, "TargetPort": 80, "PublishMode": "ingress"}]
    setup.dockerd.services = [{"ID": "s1", "Spec": {"Name": "web"}, "Endpoint": {"Ports": ports}}]
    setup.connect()
    until(lambda: setup.ports_of("web") == [(port, "ok"), (port, "ok")])
    return port


def test_ports_of_services(setup: Setup) -> None:
    port = service(setup)
    assert {entry["inside"] for entry in setup.ports.holders.listing()} == {80}
    setup.dockerd.services = []
    setup.dockerd.tell("remove", "s1", "service")
    until(lambda: not listens(port))


def test_who_leaves_a_swarm_hears_of_its_tasks_alone(setup: Setup) -> None:
    port = service(setup)
    setup.dockerd.services = []
    setup.dockerd.tell("die", "d" * 64, **TASK)
    until(lambda: not listens(port))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "rpc error: code = Unknown desc = The swarm does not have a leader."),
        (503, "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."),
    ],
)
def test_a_manager_that_cannot_tell_now_still_has_its_services(setup: Setup, status: int, message: str) -> None:
    port = service(setup)
    before = setup.served("service:s1")
    setup.dockerd.refuses["/services"] = status, message
    setup.dockerd.tell("update", "s1", "service")
    setup.dockerd.tell("start", "d" * 64, **TASK)
    setup.hear()
    assert setup.served("service:s1") == before
    assert listens(port)
    setup.dockerd.refuses.clear()
    setup.dockerd.services = []
    setup.dockerd.tell("start", "d" * 64, **TASK)
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


# One that runs is not to be touched


def test_a_start_that_cannot_have_its_port_leaves_one_that_runs(setup: Setup) -> None:
    setup.connect()
    with socket.create_server(("127.0.0.1", 0)) as other:
        publish(setup, ID, other.getsockname()[1], AutoRemove=True)
        setup.dockerd.set_running(ID, True)
        until(lambda: bool(setup.ports_of(f"name-{ID}")))
        assert setup.post(f"/containers/{ID}/start") == (304, None)
        with pytest.raises(Taken, match="in use"):
            setup.ports.publisher.before_start(ID, restart=True)
    assert setup.dockerd.containers[ID]["State"]["Running"]
    assert not any(call.startswith("DELETE") for call in setup.dockerd.calls)


def test_one_that_has_run_is_not_removed_either(setup: Setup) -> None:
    setup.connect()
    with socket.create_server(("127.0.0.1", 0)) as other:
        publish(setup, ID, other.getsockname()[1], AutoRemove=True)
        setup.dockerd.containers[ID]["State"]["Status"] = "exited"
        assert setup.post(f"/containers/{ID}/start")[0] == 500
    assert ID in setup.dockerd.containers


def test_a_start_whose_folder_the_machine_has_no_more(setup: Setup, tmp_path: Path) -> None:
    """The engine would make an empty one. A container that runs is left alone."""
    setup.connect()
    port = free_port()
    publish(setup, ID, port, AutoRemove=True)
    mounts = [{"Type": "volume", "Source": "/x"}, {"Type": "bind", "Source": str(tmp_path)}]
    setup.dockerd.containers[ID]["Mounts"] = mounts
    setup.dockerd.containers[ID]["State"]["Status"] = "exited"
    status, body = setup.post(f"/containers/{ID}/start")
    assert (status, "is not shared with the machine any more" in body["message"]) == (500, True)
    assert ID in setup.dockerd.containers and not listens(port)
    setup.dockerd.set_running(ID, True)
    assert setup.post(f"/containers/{ID}/start") == (304, None)
    assert setup.post(f"/containers/{ID}/restart")[0] == 500
    mounts[1]["Source"] = "/run/docker.sock"
    assert setup.post(f"/containers/{ID}/restart")[0] == 204


@pytest.mark.parametrize("name", ["caf%C3%A9", "a%20b", "a%3Fx=1%23"])
def test_names_of_any_kind(setup: Setup, name: str) -> None:
    assert setup.post(f"/containers/{name}/start") == (404, {"message": "no such container"})


# Events and answers that cross each other


@contextlib.contextmanager
def events_wait(setup: Setup) -> Iterator[None]:
    """What happens in it is heard when it is over: an answer about another container keeps it waiting."""
    go, busy, late = threading.Event(), "e" * 64, []

    def hold(path: str) -> None:
        if path == f"/containers/{busy}/json" and not go.wait(30):
            late.append(path)

    publish(setup, busy, free_port())
    setup.dockerd.before_answers = hold
    setup.dockerd.set_running(busy, True)
    try:
        yield
        assert not late  # nobody else waits for that answer
    finally:
        go.set()
        setup.dockerd.before_answers = lambda _path: None


def test_an_end_while_the_engine_was_asked_is_not_forgotten(setup: Setup) -> None:
    setup.connect()
    port = free_port()
    publish(setup, ID, port)
    setup.post(f"/containers/{ID}/start")
    setup.hear()
    tell = setup.ports.publisher.before_start(ID)
    on_event = setup.ports.publisher.on_event
    heard, handled = threading.Event(), threading.Event()

    def listen(event: Any) -> None:
        heard.set()
        on_event(event)
        handled.set()

    def end(path: str) -> None:
        if path == f"/containers/{ID}/json":
            setup.dockerd.before_answers = lambda _path: None
            setup.dockerd.set_running(ID, False)
            assert heard.wait(30)
            handled.wait(0.5)  # who does not wait for the answer that is under way has freed the port by then

    setup.ports.publisher.on_event = listen  # type: ignore[method-assign]
    setup.dockerd.before_answers = end
    tell(0)  # nobody knows whether it started: the engine is asked
    until(lambda: handled.is_set() and not listens(port))


def test_an_end_that_is_heard_late_is_that_of_the_life_before(setup: Setup) -> None:
    setup.connect()
    port = free_port()
    publish(setup, ID, port)
    setup.post(f"/containers/{ID}/start")
    setup.hear()
    before = setup.served(ID)
    with events_wait(setup):
        setup.dockerd.set_running(ID, False)
        assert setup.post(f"/containers/{ID}/start")[0] == 204
    setup.hear()
    assert setup.served(ID) == before
    assert listens(port)


def test_a_port_is_free_when_its_container_is_whatever_was_heard(setup: Setup) -> None:
    setup.connect()
    port = free_port()
    publish(setup, ID, port)
    publish(setup, OTHER, port)
    setup.post(f"/containers/{ID}/start")
    setup.hear()
    with events_wait(setup):
        setup.dockerd.set_running(ID, False)
        assert setup.post(f"/containers/{OTHER}/start")[0] == 204
    setup.hear()
    assert {entry["container"] for entry in setup.ports.holders.listing() if entry["port"] == port} == {f"name-{OTHER}"}
    assert listens(port)


def test_an_end_needs_no_question(setup: Setup) -> None:
    setup.connect()
    port = free_port()
    publish(setup, ID, port)
    setup.post(f"/containers/{ID}/start")
    setup.hear()
    asked = setup.dockerd.calls.count(f"GET /containers/{ID}/json")
    setup.dockerd.set_running(ID, False)
    until(lambda: not listens(port))
    assert setup.dockerd.calls.count(f"GET /containers/{ID}/json") == asked


def test_one_that_starts_while_all_are_listed(setup: Setup) -> None:
    setup.connect()
    port = free_port()
    publish(setup, ID, port)
    before: list[Any] = []

    def start(path: str) -> None:
        if path == "/containers/json" and not before:
            assert setup.post(f"/containers/{ID}/start")[0] == 204
            before.extend(setup.served(ID))

    setup.dockerd.before_answers = start
    setup.dockerd.end_events()
    until(lambda: bool(before) and len(setup.dockerd.listeners) == 1)
    setup.hear()
    assert setup.served(ID) == before
    assert listens(port)


def test_an_engine_that_cannot_tell_frees_nothing(setup: Setup) -> None:
    setup.connect()
    port = free_port()
    publish(setup, ID, port)
    setup.post(f"/containers/{ID}/start")
    before = setup.served(ID)
    setup.dockerd.refuses[f"/containers/{ID}/json"] = 500, "context deadline exceeded"
    setup.dockerd.tell("start", ID)
    setup.hear()
    assert setup.served(ID) == before
    assert listens(port)
    setup.dockerd.refuses[f"/containers/{ID}/json"] = 404, "no such container"
    setup.dockerd.tell("start", ID)
    until(lambda: not listens(port))


def test_a_container_whose_restart_is_waited_for_holds_no_port(setup: Setup) -> None:
    setup.connect()
    port = free_port()
    publish(setup, ID, port)
    setup.post(f"/containers/{ID}/start")
    setup.dockerd.containers[ID]["State"]["Restarting"] = True  # the engine says that it runs, too
    setup.dockerd.end_events()
    until(lambda: not listens(port))
