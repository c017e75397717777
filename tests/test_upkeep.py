"""What is given back at rest, and that nothing is done while there is nothing to give: a clock and a QEMU of our own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import pytest

from launcher.errors import WherryError
from launcher.keeper.events import FILTERS, Events
from launcher.keeper.upkeep import EASE, REMOVALS, Upkeep, processor_seconds
from launcher.qemu.qmp import Qmp
from launcher.ssh.transport import Connection
from launcher.state import State

MIB = 1 << 20


class Machine:
    """A running machine whose time and work are ours: `rest` and `work` let seconds pass, the keeper looking every 5 s."""

    def __init__(self) -> None:
        self.state = State(status="running", qemu_pid=7)
        self.now, self.used, self.written = 1000.0, 0.0, 0
        self.done: list[str] = []
        self.code = 0
        self.events = Events()
        self.upkeep = Upkeep(self, self.events, self, lambda: self.now, lambda _pid: self.used)
        self._hear = self.events._subscribers[0][0]

    def monitor(self) -> Qmp:
        return cast(Qmp, self)

    def connection(self) -> Connection:
        return cast(Connection, self)

    def execute(self, command: str, /, *, timeout: float = 30, **_: Any) -> Any:
        assert command == "query-blockstats" and timeout
        return [{"node-name": "data", "stats": {"wr_bytes": self.written}}]

    def run(self, argv: list[str], *, timeout: float) -> tuple[int, bytes, bytes]:
        assert argv == [EASE] and timeout
        self.done.append("ease")
        self.used += 3  # which is no work of the machine's
        return self.code, b"100 2000\n", b""

    def do(self, request: Mapping[str, Any], tell: Callable[[int, int], None], /) -> dict[str, Any]:
        assert request == {"action": "reclaim"}
        tell(0, 1)
        self.done.append("trim")
        self.used += 3
        if self.code:
            raise WherryError("it failed.")
        return {"before": 10, "after": 5, "trimmed": 5}

    def pass_by(self, seconds: float, share: float) -> list[str]:
        """What was done meanwhile."""
        self.done.clear()
        for _ in range(int(seconds / 5)):
            self.now += 5
            self.used += 5 * share
            self.upkeep.look()
            for thread in threading.enumerate():
                if thread.name == "upkeep":
                    thread.join(60)
        return list(self.done)

    def rest(self, seconds: float) -> list[str]:
        return self.pass_by(seconds, 0.015)

    def work(self, seconds: float) -> list[str]:
        return self.pass_by(seconds, 0.9)

    def remove(self, kind: str = "container", action: str = "destroy") -> None:
        assert kind in FILTERS["type"] and action in FILTERS["event"]
        self._hear({"Type": kind, "Action": action, "Actor": {"ID": "x"}})


@pytest.fixture
def machine() -> Iterator[Machine]:
    yield Machine()


def test_memory_is_given_back_once_after_work(machine: Machine) -> None:
    assert machine.rest(110) == []
    assert machine.rest(40) == ["ease"]  # after the start
    assert machine.rest(7200) == []
    assert machine.work(300) == []
    assert machine.rest(150) == ["ease"]
    assert machine.rest(7200) == []


def test_what_is_removed_is_trimmed_once_it_is_quiet(machine: Machine) -> None:
    machine.rest(200)
    for kind, action in [("image", "delete"), ("volume", "destroy"), ("builder", "prune"), ("container", "destroy")]:
        assert action in REMOVALS
        machine.remove(kind, action)
        assert machine.rest(10) == []  # many may go, one after the other
    assert machine.rest(100) == ["trim"]
    machine.remove()
    assert machine.work(300) == []
    assert "trim" in machine.rest(100)
    machine.remove()
    assert "trim" in machine.work(900)  # one that never rests
    assert "trim" not in machine.rest(7200)


def test_a_day_without_writing_wakes_nobody(machine: Machine) -> None:
    assert machine.rest(3 * 86400) == ["ease"]
    machine.written = 63 * MIB
    assert machine.rest(86400) == []
    machine.written = 65 * MIB
    assert machine.rest(86400) == ["trim"]
    assert machine.rest(3 * 86400) == []


def test_nothing_of_a_machine_that_is_held_or_not_ready(machine: Machine) -> None:
    machine.remove()
    for state in (State(status="starting", qemu_pid=7), State(status="running", qemu_pid=7, paused="full")):
        machine.state = state
        assert machine.rest(1000) == []
    machine.state = State(status="running", qemu_pid=7)
    assert machine.rest(200) == ["trim", "ease"]


def test_another_qemu_begins_anew(machine: Machine) -> None:
    machine.rest(200)
    machine.state, machine.used = State(status="running", qemu_pid=8), 0.0
    assert machine.rest(200) == ["ease"]


@pytest.mark.parametrize("code", [1, 127])
def test_what_fails_is_not_tried_again_and_again(machine: Machine, code: int) -> None:
    machine.code = code
    machine.remove()
    assert machine.rest(7200) == ["trim", "ease"]


def test_processor_seconds() -> None:
    assert processor_seconds(os.getpid()) > 0
    assert processor_seconds(0) == processor_seconds(2**30) == 0
