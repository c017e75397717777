"""Ports that the proxy chooses and addresses that the guest does not have: in requests and in what is shown of them."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from launcher.config import GIB, MachineConfig
from launcher.errors import Damaged, WherryError
from launcher.keeper.ports import plan, shown
from launcher.keeper.ports.aliases import PORT, Aliases
from launcher.keeper.ports.bindings import CHOSEN_FROM
from tests.dockerd import dockerd
from tests.guestserver import guest
from tests.loopback import free_port, listens, until
from tests.test_publisher import Setup, keeper_with_ports

BOTH = ("127.0.0.1", "::1")


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    with keeper_with_ports(tmp_path, monkeypatch) as made:
        made.connect()
        yield made


def call(setup: Setup, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    made = http.client.HTTPConnection("docker", timeout=30)
    made.sock = socket.socket(socket.AF_UNIX)
    made.sock.connect(str(setup.keeper.directory.engine_socket))
    made.request(method, path, None if body is None else json.dumps(body))
    with made.getresponse() as answer:
        data = answer.read()
    made.close()
    return answer.status, json.loads(data) if data else None


def create(setup: Setup, *entries: dict[str, str], **settings: Any) -> str:
    bindings = {"PortBindings": {"80/tcp": list(entries)}} if entries else {}
    status, made = call(setup, "POST", "/v1.51/containers/create", {"Image": "web", "HostConfig": {**bindings, **settings}})
    assert status == 201
    return str(made["Id"])


def start(setup: Setup, identity: str) -> None:
    assert call(setup, "POST", f"/containers/{identity}/start") == (204, None)


def shown_ports(setup: Setup, identity: str, key: str = "80/tcp") -> list[tuple[str, int]]:
    found = call(setup, "GET", f"/containers/{identity}/json")[1]
    ports = found["NetworkSettings"]["Ports"].get(key, [])
    return [(entry["HostIp"], int(entry["HostPort"])) for entry in ports]


def bound(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


def told(setup: Setup, identity: str, key: str = "80/tcp") -> list[tuple[str, str]]:
    """What the engine was told."""
    found = setup.dockerd.containers[identity]["HostConfig"]["PortBindings"].get(key, [])
    return [(entry["HostIp"], entry["HostPort"]) for entry in found]


# Addresses


@pytest.mark.parametrize(
    ("address", "port"),
    [("::1", 80), ("::", 8080), ("192.168.1.5", 65535), ("127.0.0.2", 80), ("", 22), ("0.0.0.0", 53), ("127.0.0.1", PORT)],
)
def test_an_address_that_the_guest_does_not_have_comes_back(tmp_path: Path, address: str, port: int) -> None:
    guest_address, guest_port = Aliases(tmp_path / "a", BOTH).encode(address, port)
    assert guest_port == PORT
    first, second, *_ = (int(part) for part in guest_address.split("."))
    assert first == 127 and second >= 128
    assert Aliases(tmp_path / "a", BOTH).decode(guest_address, guest_port) == (address, port)  # what a later keeper knows


@pytest.mark.parametrize(("address", "port"), [("", 80), ("0.0.0.0", 80), ("127.0.0.1", 8080), ("no address", 80)])
def test_what_the_guest_has_stays(tmp_path: Path, address: str, port: int) -> None:
    known = Aliases(tmp_path / "a", BOTH)
    assert known.encode(address, port) == (address, port)
    assert not (tmp_path / "a").exists()


def test_127_0_0_1_stands_beside_a_publish_address_of_the_network(tmp_path: Path) -> None:
    assert Aliases(tmp_path / "a", ("192.168.1.5",)).encode("127.0.0.1", 80)[1] == PORT


def test_a_damaged_list_of_addresses_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("[")
    known = Aliases(tmp_path / "a", BOTH)
    with pytest.raises(Damaged, match="cannot be read"):
        known.encode("192.168.1.5", 80)
    assert known.decode("127.128.0.80", PORT) == ("127.128.0.80", PORT)
    assert (tmp_path / "a").read_text() == "["


def test_what_only_looks_like_an_alias_stays(tmp_path: Path) -> None:
    known = Aliases(tmp_path / "a", BOTH)
    for address, port in (("127.128.0.80", PORT), ("127.128.0.80", 80), ("127.0.0.1", PORT)):
        assert known.decode(address, port) == (address, port)


def test_there_are_only_so_many_addresses(tmp_path: Path) -> None:
    known = Aliases(tmp_path / "a", BOTH)
    for number in range(127):
        known.encode(f"192.168.1.{number}", 80)
    with pytest.raises(WherryError, match="no more addresses"):
        known.encode("192.168.2.1", 80)


@pytest.mark.parametrize("mode", ["host", "none", "container:abc"])
def test_nothing_is_chosen_where_nothing_is_published(mode: str) -> None:
    assert plan.of({"NetworkMode": mode, "PublishAllPorts": True}, lambda: ["80/tcp"]).wishes == []


def test_what_cannot_be_read_is_left_to_the_engine(tmp_path: Path) -> None:
    known = Aliases(tmp_path / "a", BOTH)
    entries: list[Any] = [None, 5, {"HostPort": "x"}, {"HostPort": 80}, {"HostPort": "9-8"}, {"HostIp": 5, "HostPort": ""}]
    entries += [{"HostIp": "localhost", "HostPort": ""}]
    settings = {"PortBindings": {"80/tcp": entries, "81/any": [{}], "82/tcp": None, "83/tcp": []}}
    before = json.dumps(settings)
    made = plan.of(settings, list)
    assert made.wishes == [] and not made.write(known) and json.dumps(settings) == before


def test_sctp_does_not_lead_into_the_machine() -> None:
    with pytest.raises(WherryError, match="81/sctp cannot be published"):
        plan.of({"PortBindings": {"81/sctp": [{"HostPort": "81"}]}}, list)
    assert plan.of({"PortBindings": {"81/sctp": []}, "PublishAllPorts": True}, lambda: ["81/sctp"]).wishes == []


def test_answers_without_such_ports_are_not_touched(tmp_path: Path) -> None:
    body = b'{"Id":  "1", "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}}}'
    known = Aliases(tmp_path / "a", BOTH)
    assert shown.restore(body, known, lambda _id: {}, any_moved=False) is body
    for odd in (b"65001", b'[1, null, {"Ports": 65001}]', b'{"65001": {}, "NetworkSettings": {"Ports": {"80/tcp": [5]}}}'):
        assert json.loads(shown.restore(odd, known, lambda _id: {}, any_moved=False)) == json.loads(odd)
    assert shown.restore(b"no JSON 65001", known, lambda _id: {}, any_moved=False) == b"no JSON 65001"


# Through the proxy


def test_an_address_of_its_own_is_shown_as_asked_for(setup: Setup) -> None:
    port = free_port()
    identity = create(setup, {"HostIp": "::1", "HostPort": str(port)}, {"HostIp": "127.0.0.2", "HostPort": str(port)})
    assert [number for _, number in told(setup, identity)] == [str(PORT)] * 2
    start(setup, identity)
    assert {(one["address"], one["port"]) for one in setup.ports.holders.listing()} == {("::1", port), ("127.0.0.2", port)}
    assert not listens(port)
    assert {one["inside"] for one in setup.ports.holders.listing()} == {80}
    assert shown_ports(setup, identity) == [("::1", port), ("127.0.0.2", port)]
    listed = call(setup, "GET", "/v1.51/containers/json?all=1")[1]
    assert [(one["IP"], one["PublicPort"]) for one in listed[0]["Ports"]] == [("::1", port), ("127.0.0.2", port)]
    found = call(setup, "GET", f"/containers/{identity}/json")[1]
    assert found["HostConfig"]["PortBindings"]["80/tcp"][0] == {"HostIp": "::1", "HostPort": str(port)}


@pytest.mark.parametrize("entry", [{"HostIp": "", "HostPort": ""}, {"hostport": "0"}, {"HostIp": "127.0.0.1", "HostPort": "0"}])
def test_a_port_that_nobody_named_is_kept_from_create_on(setup: Setup, entry: dict[str, str]) -> None:
    identity = create(setup, entry)
    entries = setup.dockerd.containers[identity]["HostConfig"]["PortBindings"]["80/tcp"]
    port = int(next(value for key, value in entries[0].items() if key.casefold() == "hostport").partition("-")[0])
    assert port in CHOSEN_FROM
    assert bound(port) and not listens(port)
    if "HostPort" not in entries[0]:
        entries[0]["HostPort"] = entries[0].pop("hostport")
    start(setup, identity)
    assert listens(port)
    assert shown_ports(setup, identity) == [(entry.get("HostIp") or "0.0.0.0", port)]
    found = call(setup, "GET", f"/containers/{identity}/json")[1]
    assert found["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"] == ""


@pytest.mark.parametrize("bindings", [{}, {"80/tcp": []}])
def test_all_ports_of_the_image(setup: Setup, bindings: dict[str, Any]) -> None:
    setup.dockerd.images["web"] = {"Config": {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}}
    identity = create(setup, PublishAllPorts=True, PortBindings=bindings)
    start(setup, identity)
    udp, tcp = shown_ports(setup, identity, "53/udp"), shown_ports(setup, identity)
    assert {one["port"] for one in setup.ports.holders.listing()} == {udp[0][1], tcp[0][1]}
    assert listens(tcp[0][1])


@pytest.mark.parametrize("how", ["removed", "refused", "late"])
def test_a_port_is_not_kept_for_ever(setup: Setup, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    first = free_port()
    monkeypatch.setattr("launcher.keeper.ports.reserved.KEPT_SECONDS", 0.2 if how == "late" else 600)
    body = {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": f"{first}-{first + 1}"}]}}}
    setup.dockerd.fails = how == "refused"
    status, made = call(setup, "POST", "/containers/create", body)
    if how == "removed":
        assert bound(first)
        setup.dockerd.remove(made["Id"])
    assert status == (404 if how == "refused" else 201)
    until(lambda: not bound(first))


def test_the_next_of_a_range(setup: Setup) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        identity = create(setup, {"HostIp": "127.0.0.1", "HostPort": f"{taken}-{taken + 3}"})
        port = int(told(setup, identity)[0][1].partition("-")[0])
        assert taken < port <= taken + 3
        body = {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": f"{taken}-{taken}"}]}}}
        assert call(setup, "POST", "/containers/create", body)[0] == 201  # one port is no range: a start says that it is taken


@pytest.mark.parametrize("named", ["{0}-{1}", "{0}-{0}"])
def test_a_range_that_a_user_wrote_is_none_that_nobody_named(setup: Setup, named: str) -> None:
    first = next(port for port in CHOSEN_FROM if not bound(port) and not bound(port + 1))
    identity = create(setup, {"HostPort": named.format(first, first + 1)})
    assert told(setup, identity) == [("", str(first))]
    setup.ports.holders.removed(identity)
    with socket.create_server(("127.0.0.1", first)):
        assert call(setup, "POST", f"/containers/{identity}/start")[0] == 500
    start(setup, identity)
    assert shown_ports(setup, identity) == [("0.0.0.0", first)]
    found = call(setup, "GET", f"/containers/{identity}/json")[1]
    assert found["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"] == str(first)


def test_a_protocol_in_any_case(setup: Setup) -> None:
    port = free_port()
    identity = create(setup, PortBindings={"80/TCP": [{"HostPort": str(port)}]})
    start(setup, identity)
    assert listens(port)


def test_a_chosen_port_that_was_taken_meanwhile_is_chosen_anew(setup: Setup) -> None:
    identity = create(setup, {"HostPort": ""})
    start(setup, identity)
    port = shown_ports(setup, identity)[0][1]
    setup.dockerd.set_running(identity, False)
    until(lambda: not listens(port))
    with socket.create_server(("127.0.0.1", port)):
        start(setup, identity)
        now = shown_ports(setup, identity)[0][1]
        assert now != port and listens(now)
        entry = next(one for one in setup.ports.holders.listing() if one["port"] == now)
        assert entry["guest_port"] == port
        setup.dockerd.tell("start", identity)  # what is heard later leaves it as it is
        other = free_port()
        setup.dockerd.add("b" * 64, {"80/tcp": [{"HostPort": str(other)}]})
        setup.dockerd.set_running("b" * 64, True)
        until(lambda: listens(other))  # by then it was heard
        assert shown_ports(setup, identity)[0][1] == now and listens(now)
    listed = call(setup, "GET", "/containers/json")[1]
    assert listed[0]["Ports"][0]["PublicPort"] == now


def test_many_at_once_never_clash(setup: Setup) -> None:
    with ThreadPoolExecutor(10) as pool:
        made = list(pool.map(lambda _: create(setup, {"HostPort": ""}), range(30)))
        list(pool.map(lambda identity: start(setup, identity), made))
    ports = {shown_ports(setup, identity)[0][1] for identity in made}
    assert len(ports) == 30 and all(map(listens, ports))


def test_where_a_port_without_an_address_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with guest(tmp_path) as machine, dockerd(tmp_path / "books.sock") as books:
        machine.engine = books.path
        machine.machine.write_config(MachineConfig("amd64", 1, GIB, "0" * 64, publish_address="127.0.0.5"))
        setup = Setup(machine, books)
        setup.connect()
        identity = create(setup, {"HostPort": ""}, {"HostIp": "127.0.0.1", "HostPort": str(free_port())})
        start(setup, identity)
        addresses = {one["address"] for one in setup.ports.holders.listing()}
        setup.close()
    setup.keeper.link.drop()  # as in keeper_with_ports
    assert addresses == {"127.0.0.5", "127.0.0.1"}
    assert told(setup, identity)[0][0] == "" and told(setup, identity)[1][1] == str(PORT)
