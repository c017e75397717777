"""launcher.keeper.ports.holders: what goes wrong, what is tried again, and many keepers at once."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from launcher.errors import NotRunning
from launcher.keeper.ports import sockets, trial
from launcher.keeper.ports.bindings import Binding
from launcher.keeper.ports.forwarder import Forwarder, Port
from launcher.keeper.ports.holders import Holders
from launcher.keeper.ports.reserved import Wish
from launcher.keeper.ports.sockets import Bound, Taken
from launcher.keeper.ports.turns import Turns
from tests.loopback import free_port, listens, until

BOTH = ("127.0.0.1", "::1")


class Fragile(Forwarder):
    """`left`: so many ports more are served, all when it is None."""

    left: int | None = None

    def open(self, proto: str, target: tuple[str, int], bound: list[Bound]) -> Port:
        if self.left is not None:
            if not self.left:
                raise OSError(24, "Too many open files")
            self.left -= 1
        return super().open(proto, target, bound)


@contextlib.contextmanager
def keeper(published: tuple[str, ...] = BOTH) -> Iterator[tuple[Holders, Fragile]]:
    forwarder = Fragile(lambda: None, lambda: False)
    made = Holders(forwarder, published)
    try:
        yield made, forwarder
    finally:
        made.close()
        forwarder.stop()


@pytest.fixture
def holders() -> Iterator[Holders]:
    with keeper() as (made, _):
        yield made


# Whose it is


def test_only_who_is_in_the_way_is_named(holders: Holders) -> None:
    port = free_port()
    holders.begin("a", "web", [Binding("tcp", "127.0.0.1", port)])
    with pytest.raises(Taken, match="this computer has no address 203.0.113.9"):
        holders.begin("b", "other", [Binding("tcp", "203.0.113.9", port)])
    with socket.create_server(("127.0.0.2", port)), pytest.raises(Taken, match="in use") as raised:
        holders.begin("b", "other", [Binding("tcp", "127.0.0.2", port)])
    assert "web" not in raised.value.owner
    for address in ("", "0.0.0.0", "127.0.0.1"):
        with pytest.raises(Taken, match="in use by container web"):
            holders.begin("b", "other", [Binding("tcp", address, port)])


def test_who_asked_before_a_start_frees_nothing(holders: Holders) -> None:
    binding = Binding("tcp", "", free_port())
    before = holders.stage("a")
    holders.begin("a", "web", [binding])
    assert not holders.free("a", before)
    while_it_starts = holders.stage("a")
    assert holders.settle("a", started=True)
    assert not holders.free("a", while_it_starts)
    assert listens(binding.port)
    assert holders.free("a", holders.stage("a"))
    assert not listens(binding.port)


def test_an_end_before_the_start_is_heard_is_of_the_life_before(holders: Holders) -> None:
    holders.begin("a", "web", [Binding("tcp", "", free_port())])
    assert holders.settle("a", started=True)
    assert not holders.ended("a")
    holders.heard("a")
    holders.begin("a", "web", [])
    holders.settle("a", started=False)  # of which none will be heard
    assert holders.ended("a")
    assert holders.listing() == []


# What goes wrong


def test_a_port_that_cannot_be_served_is_not_held() -> None:
    first, second = Binding("tcp", "", free_port()), Binding("tcp", "", free_port())
    with keeper() as (holders, forwarder):
        forwarder.left = 1
        with pytest.raises(Taken, match="cannot be served"):
            holders.begin("a", "web", [first, second])
        assert holders.listing() == []
        assert not listens(first.port) and not listens(second.port)
        forwarder.left = None
        holders.begin("a", "web", [first, second])
        assert holders.settle("a", started=True)
        holders.free("a")  # no start is taken to be under way
        assert not listens(first.port)


def test_nothing_is_held_after_the_end(holders: Holders) -> None:
    holders.close()
    with pytest.raises(NotRunning):
        holders.begin("a", "web", [Binding("tcp", "", free_port())])
    with pytest.raises(NotRunning):
        holders.reserve([Wish("tcp", "")])
    assert holders.listing() == []


def test_a_computer_that_has_none_of_the_addresses() -> None:
    binding = Binding("tcp", "", free_port())
    with keeper(("2001:db8::1",)) as (holders, _):
        with pytest.raises(Taken, match="this computer has no address 2001:db8::1"):
            holders.begin("a", "web", [binding])
        with pytest.raises(Taken):
            holders.reserve([Wish("tcp", "")])
        holders.hold("a", "web", [binding])
        assert [entry["state"] for entry in holders.listing()] == ["cannot be had"]


# Later tries


def test_a_later_try_costs_a_bind(holders: Holders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("launcher.keeper.ports.holders.RETRY_SECONDS", 0.01)
    tries: list[Binding] = []
    looks: list[int] = []
    succeeds, owner_of = trial.succeeds, sockets.owner_of

    def tried(binding: Binding, published: tuple[str, ...]) -> bool:
        tries.append(binding)
        return succeeds(binding, published)

    def looked(proto: str, address: str, port: int) -> str:
        looks.append(port)
        return owner_of(proto, address, port)

    monkeypatch.setattr(trial, "succeeds", tried)
    monkeypatch.setattr(sockets, "owner_of", looked)
    binding = Binding("tcp", "", free_port())
    with caplog.at_level(logging.WARNING, "wherry.ports"), socket.create_server(("127.0.0.1", binding.port)):
        holders.hold("a", "web", [binding])
        until(lambda: len(tries) > 3)
    assert looks == [binding.port]
    assert len(caplog.records) == 1
    until(lambda: [entry["state"] for entry in holders.listing()] == ["ok", "ok"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_try_that_fails_is_not_the_last(holders: Holders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.keeper.ports.holders.RETRY_SECONDS", 0.01)
    failures: list[int] = []

    def fail(*_: Any) -> bool:
        failures.append(1)
        raise RuntimeError("of the system's")

    binding = Binding("tcp", "", free_port())
    with monkeypatch.context() as patched, socket.create_server(("127.0.0.1", binding.port)):
        patched.setattr(trial, "succeeds", fail)
        holders.hold("a", "web", [binding])
        until(lambda: bool(failures))
    until(lambda: listens(binding.port))


# Turns


def test_one_at_a_time_of_each_name() -> None:
    turns, inside, most = Turns(), [0], []

    def count(_number: int) -> None:
        with turns.of("a"):
            inside[0] += 1
            most.append(inside[0])
            inside[0] -= 1

    with turns.of("b"), ThreadPoolExecutor(8) as pool:  # which is not in the way of the others
        list(pool.map(count, range(200)))
    assert set(most) == {1}
    assert turns._turns == {}


# Ten machines


def test_ten_machines_at_once_never_choose_the_same_port() -> None:
    with contextlib.ExitStack() as stack:
        keepers = [stack.enter_context(keeper())[0] for _ in range(10)]

        def choose(holders: Holders) -> list[tuple[str, int]]:
            """Twelve containers with three ports each."""
            chosen = []
            for number in range(12):
                wishes = [Wish("tcp", ""), Wish("udp", ""), Wish("tcp", "127.0.0.1")]
                holders.created(holders.reserve(wishes), f"c{number}")
                holders.begin(f"c{number}", "", [Binding(one.proto, one.address, one.port, chosen=one.port) for one in wishes])
                chosen += [(one.proto, one.port) for one in wishes]
            return chosen

        with ThreadPoolExecutor(len(keepers)) as pool:
            chosen = [one for some in pool.map(choose, keepers) for one in some]
        assert len(set(chosen)) == len(chosen) == 360
        held = [(one["protocol"], one["address"], one["port"]) for made in keepers for one in made.listing()]
        assert len(set(held)) == len(held)
        assert {(proto, port) for proto, _, port in held} == set(chosen)
