"""launcher.keeper.ports: listeners of this computer, the loop that serves them, and who holds them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from launcher import host
from launcher.errors import Damaged, Usage
from launcher.host import HostModule, linux, macos, windows
from launcher.keeper.ports import byhand, inner, sockets
from launcher.keeper.ports.aliases import Aliases
from launcher.keeper.ports.bindings import NIC, Binding, of_container, of_service
from launcher.keeper.ports.byhand import ByHand
from launcher.keeper.ports.forwarder import Forwarder
from launcher.keeper.ports.holders import Holders
from launcher.keeper.ports.inner import Inner
from launcher.keeper.ports.pace import WIDTH, Pace
from launcher.keeper.ports.rules import Rules
from launcher.keeper.ports.sockets import Bound, Taken
from launcher.keeper.ports.tcp import TcpPort, _Outer
from launcher.qemu.qmp import Qmp
from tests.loopback import free_port, until
from tests.slirp import Slirp

V4 = ("127.0.0.1",)
BOTH = ("127.0.0.1", "::1")


def everything(stream: socket.socket) -> bytes:
    stream.settimeout(30)
    got = b""
    while data := stream.recv(65536):
        got += data
    return got


# What a container publishes


def described(bindings: dict[str, Any], actual: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return {
        "HostConfig": {"NetworkMode": "bridge", "PortBindings": bindings, **settings},
        "NetworkSettings": {"Ports": actual or {}},
        "Config": {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}},
    }


ANY = {"HostIp": "", "HostPort": "0"}
TABLE: list[tuple[dict[str, Any], list[Binding]]] = [
    (described({}), []),
    (described({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}), [Binding("tcp", "", 8080)]),
    (described({"53/udp": [{"HostPort": "53"}]}), [Binding("udp", "", 53)]),
    (described({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "80"}]}), [Binding("tcp", "127.0.0.1", 80, "127.0.0.1")]),
    (described({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}), [Binding("tcp", "0.0.0.0", 80, NIC)]),
    (described({"80/tcp": [ANY]}), []),
    (described({"80/tcp": [ANY]}, {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "20001"}]}), [Binding("tcp", "", 20001)]),
    (
        described({"80/tcp": [ANY]}, {"80/tcp": [{"HostIp": a, "HostPort": "20001"} for a in ("0.0.0.0", "::")]}),
        [Binding("tcp", "", 20001)],
    ),
    (
        described({"80/tcp": [{"HostIp": "", "HostPort": "7"}, ANY]}, {"80/tcp": [{"HostPort": "7"}, {"HostPort": "20001"}]}),
        [Binding("tcp", "", 7), Binding("tcp", "", 20001)],
    ),
    (
        described({}, {"80/tcp": [{"HostPort": "20001"}], "53/udp": [{"HostPort": "20002"}]}, PublishAllPorts=True),
        [Binding("tcp", "", 20001), Binding("udp", "", 20002)],
    ),
    (described({"80/tcp": [{"HostPort": "8080"}]}, NetworkMode="host"), []),
    (described({"80/tcp": [{"HostPort": "8080"}]}, NetworkMode="container:abc"), []),
    (described({"80/sctp": [{"HostPort": "8080"}]}), []),
]


@pytest.mark.parametrize(("found", "bindings"), TABLE)
def test_bindings_of_a_container(found: dict[str, Any], bindings: list[Binding], tmp_path: Path) -> None:
    assert of_container(found, Aliases(tmp_path / "a", BOTH)) == bindings


def test_bindings_of_a_service() -> None:
    port = {"Protocol": "tcp", "PublishedPort": 8080, "TargetPort": 80}
    ports = [{**port, "PublishMode": "ingress"}, {**port, "PublishedPort": 8081, "PublishMode": "host"}]
    assert of_service({"Endpoint": {"Ports": ports}}) == [Binding("tcp", "", 8080)]
    assert of_service({"Endpoint": {}}) == []


# Sockets of this computer


def test_localhost_is_both() -> None:
    binding = Binding("tcp", "", free_port())
    bound = sockets.bind(binding, BOTH)
    try:
        assert [one.socket.getsockname()[:2] for one in bound] == [(address, binding.port) for address in BOTH]
        assert not any(one.only_local for one in bound)
    finally:
        sockets.close(bound)
    sockets.close(sockets.bind(binding, BOTH))  # free again at once


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_port_that_is_taken_names_its_owner(proto: str) -> None:
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        if proto == "tcp":
            other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Taken) as raised:
            sockets.bind(Binding(proto, "127.0.0.1", port, inside=80), BOTH)
    owner = f"{psutil.Process().name()} (pid {os.getpid()})"
    assert raised.value.message == f"port 127.0.0.1:{port}/{proto} is in use by {owner}"
    suffix = "" if proto == "tcp" else "/udp"
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("Free it, or publish another: -p ")
    assert raised.value.hint.endswith(f":80{suffix}")


def test_an_owner_is_found_where_the_whole_list_is_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""

    def denied(_kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", denied)
    with socket.create_server(("127.0.0.1", 0)) as other:
        owner = sockets.owner_of("tcp", "127.0.0.1", other.getsockname()[1])
    assert owner == f"{psutil.Process().name()} (pid {os.getpid()})"
    assert sockets.owner_of("tcp", "127.0.0.1", free_port()) == ""


def test_all_addresses_or_none() -> None:
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Taken, match=r"\[::1\]"):
            sockets.bind(Binding("tcp", "", port), BOTH)
        sockets.close(sockets.bind(Binding("tcp", "", port), V4))  # which the first try did not keep


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(Taken, match="this computer has no address 192\\.0\\.2\\.1"):
        sockets.bind(Binding("tcp", "192.0.2.1", free_port()), BOTH)


def test_a_port_with_a_lingering_connection_can_be_had() -> None:
    binding = Binding("tcp", "127.0.0.1", free_port())
    bound = sockets.bind(binding, V4)
    client = socket.create_connection(("127.0.0.1", binding.port))
    bound[0].socket.setblocking(True)
    server, _ = bound[0].socket.accept()
    server.close()  # whose end it is: TIME_WAIT is here
    client.close()
    sockets.close(bound)
    sockets.close(sockets.bind(binding, V4))


def test_a_low_port_as_an_ordinary_user() -> None:
    """In a process of its own, which gives up being root."""
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first <= 81:
        pytest.skip(f"here anybody may open ports from {first} on")
    host.current().port_denied("tcp", 81)  # loads what nobody may be able to read there
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        said = "it was opened"
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            sockets.bind(Binding("tcp", "", 81, inside=80), BOTH)
        except Taken as error:
            said = f"{error.message}|{error.hint}"
        except BaseException as error:
            said = repr(error)
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as end:
        message, _, hint = end.read().partition("|")
    assert message == f"port 127.0.0.1:81/tcp cannot be opened: ports below {first} are root's on this computer"
    assert re.fullmatch(r"sudo sysctl net\.ipv4\.ip_unprivileged_port_start=81, or publish another: -p 8\d\d\d:80", hint)


def test_reserved_ranges_of_windows() -> None:
    text = """
Protokoll tcp Portausschlussbereiche

Startport    Endport
----------    --------
      5357        5357
     50000       50059     *

* - Verwaltete Portausschlüsse.
"""
    assert windows.reserved_ranges(text) == [(5357, 5357), (50000, 50059)]


# The loop


@contextlib.contextmanager
def served(
    slirp: Slirp, proto: str = "tcp", published: tuple[str, ...] = V4, held: Callable[[], bool] = lambda: False
) -> Iterator[int]:
    forwarder = Forwarder(lambda: cast(Qmp, slirp), held)
    binding = Binding(proto, "", free_port())
    port = forwarder.open(proto, binding.target, sockets.bind(binding, published))
    try:
        yield binding.port
    finally:
        forwarder.close(port)
        forwarder.stop()


def echo_to_the_end(stream: socket.socket) -> None:
    """Answers when the input has ended: a lost half-close would hang it."""
    with stream:
        stream.sendall(everything(stream)[::-1])


def test_half_a_connection_may_end() -> None:
    with served(Slirp(echo_to_the_end)) as port, socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall(b"abc" * 100_000)
        stream.shutdown(socket.SHUT_WR)
        assert everything(stream) == b"cba" * 100_000


def test_a_machine_that_is_held_refuses_at_once() -> None:
    held = [True]
    slirp = Slirp(echo_to_the_end)
    with served(slirp, held=lambda: held[0]) as port:
        with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", port)) as stream:
            stream.recv(1)
        assert not slirp.targets
        held[0] = False
        with socket.create_connection(("127.0.0.1", port)) as stream:
            stream.sendall(b"ab")
            stream.shutdown(socket.SHUT_WR)
            assert everything(stream) == b"ba"


def test_the_servers_half_may_end_first() -> None:
    got: list[bytes] = []

    def serve(stream: socket.socket) -> None:
        stream.sendall(b"hello")
        stream.shutdown(socket.SHUT_WR)
        got.append(everything(stream))

    with served(Slirp(serve)) as port, socket.create_connection(("127.0.0.1", port)) as stream:
        assert everything(stream) == b"hello"
        stream.sendall(b"still here")
        stream.shutdown(socket.SHUT_WR)
        until(lambda: got == [b"still here"])


def test_a_reset_is_passed_on() -> None:
    def serve(stream: socket.socket) -> None:
        stream.recv(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()

    with served(Slirp(serve)) as port, socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall(b"x")
        stream.settimeout(30)
        with pytest.raises(ConnectionResetError):
            stream.recv(1)


def test_one_who_does_not_read_holds_no_memory() -> None:
    def serve(stream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream.sendall(bytes(65536))

    before = psutil.Process().memory_info().rss
    with served(Slirp(serve)) as port, socket.create_connection(("127.0.0.1", port)) as stream:
        stream.recv(1)
        time.sleep(0.5)
        assert psutil.Process().memory_info().rss - before < 30 << 20


def test_two_hundred_at_once_behind_a_backlog_of_one() -> None:
    def serve(stream: socket.socket) -> None:
        with stream:
            stream.sendall(b"hello")

    slirp = Slirp(serve)
    answered: list[bytes] = []
    with served(slirp) as port:

        def connect() -> None:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as stream:
                answered.append(everything(stream))

        threads = [threading.Thread(target=connect) for _ in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answered == [b"hello"] * 200
    assert slirp.accepted == 200


def test_a_server_with_a_short_queue_is_not_overrun() -> None:
    """As slirp and a busybox httpd: what is not accepted yet is never more than a few."""
    waiting, most, lock = 0, 0, threading.Lock()

    def serve(stream: socket.socket) -> None:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        time.sleep(0.01)
        with lock:
            waiting -= 1
        with stream:
            stream.sendall(b"hello")

    with served(Slirp(serve)) as port:
        streams = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        assert [everything(stream) for stream in streams] == [b"hello"] * 60
        for stream in streams:
            stream.close()
    assert most <= 9


def test_a_rule_is_there_only_while_connections_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner, "LINGER", 0.1)
    slirp = Slirp(echo_to_the_end)
    with served(slirp) as port:
        assert not slirp.rules
        with socket.create_connection(("127.0.0.1", port)) as stream:
            until(lambda: slirp.accepted == 1)
            until(lambda: not slirp.rules)
            stream.sendall(b"ab")
            stream.shutdown(socket.SHUT_WR)
            assert everything(stream) == b"ba"  # it outlives the rule
        with socket.create_connection(("127.0.0.1", port)) as stream:
            stream.shutdown(socket.SHUT_WR)
            assert everything(stream) == b""
    until(lambda: not slirp.rules)


# Where the system gives low ports on the wildcard address only (macOS)


def elsewhere() -> str:
    """An address by which this computer reaches itself other than by its loopback."""
    found = [one.address for entries in psutil.net_if_addrs().values() for one in entries if one.family == socket.AF_INET]
    return next((address for address in found if not address.startswith("127.")), "") or pytest.skip("there is none")


@contextlib.contextmanager
def on_the_wildcard(proto: str) -> Iterator[int]:
    slirp = Slirp(lambda stream: stream.sendall(b"HELLO"))
    forwarder = Forwarder(lambda: cast(Qmp, slirp), lambda: False)
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM)
    made.bind(("0.0.0.0", 0))
    if proto == "tcp":
        made.listen()
    made.setblocking(False)
    port = forwarder.open(proto, (NIC, 80), [Bound(made, only_local=True)])
    try:
        yield made.getsockname()[1]
        assert len(slirp.targets) == 1  # nobody from elsewhere got as far as the guest
    finally:
        forwarder.close(port)
        forwarder.stop()


def test_who_is_not_of_this_computer_is_broken_off() -> None:
    with on_the_wildcard("tcp") as port:
        with pytest.raises(ConnectionResetError), socket.create_connection((elsewhere(), port), timeout=30) as stream:
            stream.recv(1)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as stream:
            assert stream.recv(100) == b"HELLO"


def test_datagrams_from_elsewhere_are_dropped() -> None:
    address = elsewhere()
    with on_the_wildcard("udp") as port, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
        for peer, place in zip(peers, (address, "127.0.0.1"), strict=True):
            peer.settimeout(30)
            peer.connect((place, port))
            peer.send(b"hello")
        assert peers[1].recv(100) == b"HELLO"  # which came second
        peers[0].setblocking(False)
        with pytest.raises(BlockingIOError):
            peers[0].recv(100)


def test_a_peer_without_an_address_is_not_taken_for_ours() -> None:
    """A system may have forgotten where a connection came from that has ended already."""

    class Ended(asyncio.Transport):
        aborted = False

        def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

        def pause_reading(self) -> None: ...

        def abort(self) -> None:
            self.aborted = True

    async def made() -> bool:
        port = TcpPort(Inner(Rules(lambda: None), "tcp", (NIC, 80)), [], lambda: False)
        end, transport = _Outer(port, only_local=True), Ended({"peername": None})
        end.connection_made(transport)
        return transport.aborted and not port.connections

    assert asyncio.run(made())


class OfMacos(socket.socket):
    """Binds as macOS lets an ordinary user. Port 80 is played by another, so that anybody can run this."""

    stands_for_80 = 0

    def bind(self, address: Any) -> None:
        host, port, *more = address
        if port == 80:
            if host not in ("0.0.0.0", "::"):
                raise PermissionError(errno.EACCES, "Permission denied")
            port = self.stands_for_80
        super().bind((host, port, *more))


def test_a_low_port_of_the_loopback_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "current", lambda: macos)
    monkeypatch.setattr(OfMacos, "stands_for_80", free_port())
    monkeypatch.setattr(socket, "socket", OfMacos)
    bound = sockets.bind(Binding("tcp", "", 80), BOTH)
    try:
        assert [(one.socket.getsockname()[0], one.only_local) for one in bound] == [("0.0.0.0", True), ("::", True)]
    finally:
        sockets.close(bound)
    high = sockets.bind(Binding("tcp", "", free_port()), BOTH)
    try:
        assert [(one.socket.getsockname()[0], one.only_local) for one in high] == [("127.0.0.1", False), ("::1", False)]
    finally:
        sockets.close(high)
    with pytest.raises(Taken, match="ports below 1024 of one address are root's") as raised:
        sockets.bind(Binding("tcp", elsewhere(), 80), V4)
    assert raised.value.hint and raised.value.hint.startswith("Publish it on 127.0.0.1 or 0.0.0.0, or publish another: -p ")


def test_macos_takes_a_port_from_what_lingers_and_from_nobody_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as ours:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            macos.bind_exclusively(ours, "127.0.0.1", port)
        other.settimeout(30)
        other.accept()[0].close()  # the look whether anybody listens
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            server, _ = other.accept()
            server.close()  # whose end it is: TIME_WAIT is here
            client.recv(1)
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("127.0.0.1", port))
    with socket.socket() as ours:
        macos.bind_exclusively(ours, "127.0.0.1", port)
        assert ours.getsockname() == ("127.0.0.1", port)


# How many


def test_more_ports_can_be_open_than_a_process_is_given_at_first() -> None:
    script = """
import resource
from launcher import host
from launcher.keeper.ports import sockets
from launcher.keeper.ports.bindings import Binding

resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
host.current().raise_descriptor_limit()
bound = [one for _ in range(200) for one in sockets.choose("tcp", "", ("127.0.0.1",), set())[1]]
print(len(bound), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
sockets.close(bound)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True, timeout=120)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert done.stdout.split() == ["200", str(min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536)]


@pytest.mark.parametrize(
    ("module", "soft", "hard", "set_to"),
    [
        (linux, 1024, resource.RLIM_INFINITY, 65536),
        (linux, 1024, 4096, 4096),
        (linux, 100_000, 1 << 20, None),  # never less than there was
        (linux, resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
        (macos, 256, resource.RLIM_INFINITY, 10240),
        (macos, 256, 4096, 4096),
        (windows, 512, 512, None),
    ],
)
def test_the_limit_of_descriptors(
    monkeypatch: pytest.MonkeyPatch, module: HostModule, soft: int, hard: int, set_to: int | None
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: asked.append(limits))
    module.raise_descriptor_limit()
    assert asked == ([(set_to, hard)] if set_to else [])


def test_datagrams_find_their_way_back() -> None:
    slirp = Slirp(echo_to_the_end)
    with served(slirp, "udp", BOTH) as port, contextlib.ExitStack() as stack:
        peers = []
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")):
            peer = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            peer.settimeout(30)
            peer.connect((address, port))
            peers.append(peer)
        for number, peer in enumerate(peers):
            peer.send(b"peer %d" % number)
        assert [peer.recv(100) for peer in peers] == [b"PEER %d" % number for number in range(3)]


# Who holds what


@pytest.fixture
def holders() -> Iterator[Holders]:
    forwarder = Forwarder(lambda: None, lambda: False)
    made = Holders(forwarder, V4)
    yield made
    made.close()
    forwarder.stop()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
        return True


def test_a_start_has_all_ports_or_none(holders: Holders) -> None:
    first, second = Binding("tcp", "", free_port()), Binding("tcp", "", free_port())
    with socket.socket() as other:
        other.bind(("127.0.0.1", second.port))
        other.listen()
        with pytest.raises(Taken):
            holders.begin("a", "web", [first, second])
        assert is_free(first.port)
        assert holders.listing() == []
    holders.begin("a", "web", [first, second])
    assert not is_free(first.port)
    assert [entry["state"] for entry in holders.listing()] == ["ok", "ok"]


def test_a_port_of_another_container_is_named(holders: Holders) -> None:
    binding = Binding("tcp", "", free_port())
    holders.begin("a", "web", [binding])
    with pytest.raises(Taken, match="in use by container web"):
        holders.begin("b", "other", [binding])


def test_nothing_is_freed_while_a_start_is_under_way(holders: Holders) -> None:
    binding = Binding("tcp", "", free_port())
    holders.begin("a", "web", [binding])
    holders.free("a")  # as `docker restart`: the end comes before the start
    assert not is_free(binding.port)
    assert not holders.settle("a", started=True)  # the engine is to be asked
    holders.free("a")
    assert is_free(binding.port)


def test_a_start_that_went_well_is_left_alone(holders: Holders) -> None:
    binding = Binding("tcp", "", free_port())
    holders.begin("a", "web", [binding])
    assert holders.settle("a", started=True)
    holders.begin("a", "web", [binding])
    assert not holders.settle("a", started=False)


def test_what_somebody_else_has_is_tried_again(holders: Holders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.keeper.ports.holders.RETRY_SECONDS", 0.05)
    binding = Binding("tcp", "", free_port())
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", binding.port))
        other.listen()
        holders.hold("a", "web", [binding])
        assert holders.listing()[0]["state"].startswith("taken by ")
    until(lambda: holders.listing()[0]["state"] == "ok")


def test_what_is_no_longer_wanted_is_freed(holders: Holders) -> None:
    first, second = Binding("tcp", "", free_port()), Binding("tcp", "", free_port())
    holders.hold("a", "web", [first, second])
    holders.hold("a", "web", [second])
    assert is_free(first.port)
    assert not is_free(second.port)
    assert holders.used("tcp") == {second.port}


# By hand


@pytest.mark.parametrize(
    ("text", "binding"),
    [
        ("5433:5432", Binding("tcp", "", 5433, NIC, 5432)),
        ("127.0.0.1:53:53/udp", Binding("udp", "127.0.0.1", 53, NIC, 53)),
        ("[::1]:80:8080/tcp", Binding("tcp", "::1", 80, NIC, 8080)),
        ("8080:127.0.0.1:80", Binding("tcp", "", 8080, "127.0.0.1", 80)),
        ("127.0.0.1:53:127.0.0.1:53/udp", Binding("udp", "127.0.0.1", 53, "127.0.0.1", 53)),
    ],
)
def test_forwards_are_read(text: str, binding: Binding) -> None:
    assert byhand.parse(text) == binding


@pytest.mark.parametrize("text", ["", "80", "80:", "0:80", "80:70000", "80:80/sctp", "host:80:80", "80:80 ", "80:10.0.2.2:80"])
def test_what_is_no_forward(text: str) -> None:
    with pytest.raises(Usage):
        byhand.parse(text)


@pytest.mark.parametrize("text", ["[", "{}", "[80]"])
def test_a_damaged_list_of_forwards_is_left_as_it_is(text: str, holders: Holders, tmp_path: Path) -> None:
    (tmp_path / "forwards.json").write_text(text)
    made = ByHand(tmp_path / "forwards.json", holders)
    made.begin()
    for action in ("add", "remove"):
        with pytest.raises(Damaged, match="forwards"):
            made.change(action, f"{free_port()}:80")
    assert (tmp_path / "forwards.json").read_text() == text
    assert holders.listing() == []


def test_a_forward_by_hand_comes_back(holders: Holders, tmp_path: Path) -> None:
    port = free_port()
    forward = f"{port}:5432"
    made = ByHand(tmp_path / "forwards.json", holders)
    made.change("add", forward)
    made.change("add", forward)
    assert not is_free(port)
    assert [(entry["port"], entry["guest_port"]) for entry in holders.listing()] == [(port, 5432)]
    holders.free(f"hand:tcp::{port}")  # as a keeper's end
    assert is_free(port)
    again = ByHand(tmp_path / "forwards.json", holders)
    again.begin()
    assert not is_free(port)
    again.change("remove", forward)
    assert is_free(port)
    with pytest.raises(Usage, match="was not added by hand"):
        again.change("remove", forward)


def test_a_forward_to_a_port_that_is_taken_is_not_kept(holders: Holders, tmp_path: Path) -> None:
    made = ByHand(tmp_path / "forwards.json", holders)
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(Taken):
        made.change("add", f"{other.getsockname()[1]}:80")
    made.begin()
    assert holders.listing() == []


async def ninth_goes(pace: Pace) -> bool:
    """Whether one more goes while eight have no answer yet."""
    for number in range(WIDTH):
        await pace.enter(number)
    ninth = asyncio.ensure_future(pace.enter("ninth"))
    done, _ = await asyncio.wait([ninth], timeout=0.5)
    ninth.cancel()
    return bool(done)


def test_a_server_that_has_answered_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.keeper.ports.pace.QUIET", (0.01,))
    monkeypatch.setattr("launcher.keeper.ports.pace.QUIET_OF_ONE_THAT_ANSWERS", (1000.0,))

    async def answering() -> bool:
        pace = Pace()
        await pace.enter("first")
        pace.answered("first")
        return await ninth_goes(pace)

    async def leaving() -> bool:
        pace = Pace()
        await pace.enter("first")
        pace.left("first")  # it has said nothing
        return await ninth_goes(pace)

    assert not asyncio.run(answering())
    assert asyncio.run(leaving())


def test_a_forward_that_is_kept_and_taken_says_so(holders: Holders, tmp_path: Path) -> None:
    made = ByHand(tmp_path / "forwards.json", holders)
    with socket.create_server(("127.0.0.1", 0)) as other:
        forward = f"{other.getsockname()[1]}:80"
        (tmp_path / "forwards.json").write_text(f'["{forward}"]')
        made.begin()
        with pytest.raises(Taken, match="is in use by"):
            made.change("add", forward)
        assert holders.listing()[0]["state"].startswith("taken by")  # it is tried again, as before
    made.change("add", forward)
    assert holders.listing()[0]["state"] == "ok"
    assert (tmp_path / "forwards.json").read_text() == f'["{forward}"]'


@pytest.mark.parametrize("address", ["localhost", "203.0.113.9", "1.2.3"])
def test_what_is_no_address_of_this_computer(address: str) -> None:
    with pytest.raises(Taken, match="cannot be published: (that is no IP address|this computer has no address)"):
        sockets.bind(Binding("tcp", address, free_port()), BOTH)
