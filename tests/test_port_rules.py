"""launcher.keeper.ports.rules, .inner: the way into the guest when QEMU dies, is slow, or this computer has no socket left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from launcher.keeper.ports import inner, sockets
from launcher.keeper.ports.bindings import NIC, Binding
from launcher.keeper.ports.forwarder import Forwarder, Port
from launcher.keeper.ports.rules import Rules
from launcher.qemu.qmp import Qmp
from tests.loopback import free_port, until
from tests.slirp import Slirp

V4 = ("127.0.0.1",)


def hello(stream: socket.socket) -> None:
    stream.sendall(b"hello")


class Machine:
    """A forwarder with a QEMU that can be killed and started again."""

    def __init__(self) -> None:
        self.slirp: Slirp | None = Slirp(hello)
        self.forwarder = Forwarder(lambda: cast("Qmp | None", self.slirp), lambda: False)
        self._stack = contextlib.ExitStack()

    def publish(self, proto: str, guest_port: int = 80) -> tuple[int, Port]:
        binding = Binding(proto, "", free_port(), NIC, guest_port)
        return binding.port, self.forwarder.open(proto, binding.target, sockets.bind(binding, V4))

    def peer(self, port: int) -> socket.socket:
        made = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.connect(("127.0.0.1", port))
        return made

    def close(self) -> None:
        self._stack.close()
        self.forwarder.stop()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Its rules stay, as they do while a port is used all the time."""
    monkeypatch.setattr(inner, "LINGER", 1000.0)
    made = Machine()
    yield made
    made.close()


def greeting(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as stream:
        return stream.recv(100)


def says(peer: socket.socket, data: bytes = b"there?") -> bool:
    """Whether one datagram is answered; answers to earlier ones are passed over."""
    with contextlib.suppress(OSError):
        peer.settimeout(0.5)
        peer.send(data)
        while (got := peer.recv(100)) != data.upper():
            assert got
        return True
    return False


def binds(made: socket.socket, port: int) -> bool:
    with contextlib.suppress(OSError):
        made.bind(("127.0.0.1", port))
        return True
    return False


def test_a_port_is_there_again_with_the_next_qemu(machine: Machine) -> None:
    port, _ = machine.publish("tcp")
    assert greeting(port) == b"hello"
    assert machine.slirp
    machine.slirp.die()
    machine.slirp = Slirp(hello)
    assert greeting(port) == b"hello"


def test_datagrams_pass_again_with_the_next_qemu(machine: Machine) -> None:
    port, _ = machine.publish("udp")
    peer = machine.peer(port)
    until(lambda: says(peer))
    assert machine.slirp
    machine.slirp.die()
    machine.slirp = Slirp(hello)
    until(lambda: says(peer, b"still there?"))
    another = machine.peer(port)
    until(lambda: says(another))


def working(proto: str, port: int, peer: socket.socket) -> Callable[[], bool]:
    """Asks the port by its protocol."""
    return (lambda: says(peer)) if proto == "udp" else (lambda: greeting(port) == b"hello")


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_program_that_has_the_port_of_a_dead_rule_gets_nothing(machine: Machine, proto: str) -> None:
    port, _ = machine.publish(proto)
    peer = machine.peer(port)
    works = working(proto, port, peer)
    until(works)
    assert machine.slirp
    [(_, number)] = machine.slirp.rules
    machine.slirp.die()
    machine.slirp = Slirp(hello)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if proto == "udp" else socket.SOCK_STREAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        until(lambda: binds(other, number))  # the thread that read from the dead one has to see that
        if proto == "tcp":
            other.listen()
        until(works)
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(1) if proto == "udp" else other.accept()


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_rule_that_is_gone_is_made_anew(machine: Machine, proto: str) -> None:
    """Also while its QEMU is the same, or nobody has noticed yet that it is not."""
    port, _ = machine.publish(proto)
    peer = machine.peer(port)
    works = working(proto, port, peer)
    until(works)
    assert machine.slirp
    [(_, number)] = machine.slirp.rules
    machine.slirp.execute("", **{"command-line": f"hostfwd_remove {proto}:127.0.0.1:{number}"})
    until(works)


def test_a_machine_that_is_off_breaks_connections_off(machine: Machine) -> None:
    port, _ = machine.publish("tcp")
    assert greeting(port) == b"hello"
    assert machine.slirp
    machine.slirp.die()
    for off in (machine.slirp, None):  # at first nobody knows
        machine.slirp = off
        with pytest.raises(ConnectionResetError):
            greeting(port)


def test_what_another_keeper_left_is_taken_away_and_nothing_else(machine: Machine) -> None:
    slirp = machine.slirp
    assert slirp
    sshd, left = free_port(), free_port()
    for port in (sshd, left):
        slirp.execute("", **{"command-line": f"hostfwd_add tcp:127.0.0.1:{port}-10.0.2.15:22"})
    published, _ = machine.publish("tcp")
    assert greeting(published) == b"hello"
    before = set(slirp.rules)
    assert len(before) == 3
    machine.forwarder.rules.sweep(sshd)
    assert set(slirp.rules) == before - {("tcp", left)}


def test_a_rule_is_known_as_ours_before_qemu_has_it() -> None:
    """A look at QEMU's list may see it before the answer is here."""

    class Looked(Slirp):
        def execute(self, command: str, /, **arguments: object) -> str:
            said = super().execute(command, **arguments)
            if "hostfwd_add" in str(arguments["command-line"]):
                rules.sweep(1)
            return said

    slirp = Looked(hello)
    rules = Rules(lambda: cast(Qmp, slirp))
    rule = rules.add("tcp", (NIC, 80))
    assert list(slirp.rules) == [("tcp", rule.port)]
    rules.remove(rule)
    assert not slirp.rules


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_rule_that_nobody_wants_any_more_when_it_is_there(machine: Machine, proto: str) -> None:
    slirp = machine.slirp
    assert slirp
    slirp.may_add.clear()
    number, port = machine.publish(proto)
    if proto == "udp":
        machine.peer(number).send(b"there?")
        stream = None
    else:
        stream = socket.create_connection(("127.0.0.1", number))
    until(lambda: bool(slirp.targets))
    machine.forwarder.close(port)
    assert not slirp.rules
    slirp.may_add.set()
    until(lambda: bool(slirp.ever))
    until(lambda: not slirp.rules)
    if stream is not None:
        stream.close()


def test_two_ports_that_lead_to_one_of_the_guest(machine: Machine) -> None:
    """slirp would send the answers of both by the rule that it finds first."""
    made = [machine.publish("udp", 53) for _ in range(2)]
    peers = [machine.peer(number) for number, _ in made]
    for peer in peers:
        until(lambda: says(peer))  # noqa: B023  called at once
    assert machine.slirp
    assert len(machine.slirp.rules) == 1
    machine.forwarder.close(made[0][1])
    until(lambda: says(peers[1]))
    machine.forwarder.close(made[1][1])
    until(lambda: not cast(Slirp, machine.slirp).rules)


# No socket left


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    """This process can open so many more (0 or 1)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_connection_for_which_there_is_no_socket_is_cut(machine: Machine) -> None:
    port, served = machine.publish("tcp")
    slirp = machine.slirp
    assert slirp
    for warm in (False, True):  # no socket to look for a port, none to connect
        if warm:
            assert greeting(port) == b"hello"
            until(lambda: slirp.served == 1 and not served.connections)
            machine.forwarder._do(asyncio.sleep(0))  # the sockets are closed a moment later
        with socket.socket() as client:
            client.settimeout(30)
            with descriptors(1), pytest.raises(ConnectionResetError):  # the keeper's end of it takes that one
                client.connect(("127.0.0.1", port))
                client.recv(1)
    assert greeting(port) == b"hello"


def test_datagrams_for_which_there_is_no_socket_are_dropped(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    port, _ = machine.publish("udp")
    peer = machine.peer(port)
    with descriptors(0):
        for _ in range(3):
            assert not says(peer)
    assert len([record for record in caplog.records if "datagrams are dropped" in record.message]) == 1
    until(lambda: says(peer))


def test_a_port_for_which_there_is_no_socket_says_so() -> None:
    binding = Binding("tcp", "", free_port())
    with descriptors(0):
        with pytest.raises(sockets.Taken, match="cannot be opened: too many files and connections are open") as raised:
            sockets.bind(binding, V4)
        assert raised.value.hint and "ulimit -Hn" in raised.value.hint
        with pytest.raises(sockets.Taken, match="too many files"):
            sockets.choose("tcp", "", V4, set())
