"""A container that ran out of memory: what is kept of it, and who hears of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from launcher.cli import proxy
from launcher.config import GIB, MachineConfig
from launcher.errors import ConnectionLost
from launcher.keeper.events import FILTERS, Event, Events
from launcher.keeper.oom import Kill, Oom, kills
from launcher.ssh.transport import Connection
from tests.conftest import Said
from tests.fakes import FakeKeeper
from tests.loopback import until

ID, OTHER = "c" * 64, "d" * 64
USAGE = "[{at}] memory: usage {limit}kB, limit {limit}kB, failcnt 41\n"
OWN = (
    "[{at}] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset={id},mems_allowed=0,oom_memcg=/docker/{id},"
    "task_memcg=/docker/{id},task=dd,pid=1215,uid=0\n"
)
ALL = (
    "[{at}] oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset={id},mems_allowed=0,global_oom,"
    "task_memcg=/docker/{id},task=dd,pid=1215,uid=0\n"
)


def own(container: str = ID, limit: int = 64 << 10, at: str = "  100.5") -> str:
    return USAGE.format(at=at, limit=limit) + OWN.format(at=at, id=container)


class Machine:
    """With a kernel whose log can be slow to come, and a link that can be down."""

    config = MachineConfig(arch="amd64", cpus=1, memory=2 * GIB, iso="a" * 64)

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.log, self.uptime, self.looks = "", "110.00", 0
        self.linked, self.answers = True, threading.Event()
        self.answers.set()

    def connection(self) -> Connection:
        if not self.linked:
            raise ConnectionLost("the machine does not answer.")
        return cast(Connection, self)

    def run_line(self, _line: str, *, timeout: float) -> tuple[int, bytes, bytes]:
        assert self.answers.wait(timeout)
        self.looks += 1
        return 0, f"{self.uptime} 200.00\n{self.log}".encode(), b""

    def note(self, text: str, *, warning: bool = False) -> None:
        assert not warning
        self.notes.append(text)


class Setup:
    def __init__(self) -> None:
        self.machine, self.events, self.now = Machine(), Events(), 1000.0
        self.oom = Oom(self.machine, self.events, lambda: self.now)
        self._hear = self.events._subscribers[0][0]

    def event(self, action: str, name: str = "web", container: str = ID, **attributes: str) -> None:
        event: Event = {
            "Type": "container",
            "Action": action,
            "Actor": {"ID": container, "Attributes": {"name": name, **attributes}},
        }
        self._hear(event)

    def ends(self, name: str = "web", container: str = ID, code: str = "137") -> list[dict[str, Any]]:
        """And it is known why."""
        self.event("die", name, container, exitCode=code)
        return self.oom.to_json(since=self.now, within=30)

    def told(self, name: str = "web", container: str = ID) -> list[dict[str, Any]]:
        """By the engine."""
        self.event("oom", name, container)
        return self.oom.to_json(since=self.now, within=30)


@pytest.fixture
def setup() -> Setup:
    return Setup()


def test_a_limit_of_its_own(setup: Setup) -> None:
    setup.machine.log = own(limit=32 << 10) + own() + own(OTHER, 1 << 20)  # it was given more since the first time
    (found,) = setup.ends()
    assert (found["container"], found["at"]) == ("web", 1000.0)
    assert setup.machine.notes == [
        "a process of web was killed: the container may have 64 MB of memory: docker run --memory 128mb …"
    ]


def test_the_machine_is_too_small(setup: Setup) -> None:
    setup.machine.log = own() + ALL.format(at="  101.0", id=OTHER)
    (found,) = setup.ends("db", OTHER)
    assert found["text"] == "a process of db was killed: the machine's 2 GB of memory are used"
    assert found["hint"] == "wherry config set memory 4G"


@pytest.mark.parametrize("linked", [True, False])
def test_the_engine_tells_and_the_kernel_does_not(setup: Setup, linked: bool) -> None:
    setup.machine.linked = linked
    (found,) = setup.told("", "e" * 64)
    assert found["container"] == "e" * 12 and "docker run --memory" in found["hint"] and "config set memory 4G" in found["hint"]


def test_one_that_was_killed_by_hand(setup: Setup) -> None:
    setup.machine.log = own(OTHER)
    setup.now += 1
    began = time.monotonic()
    assert setup.ends() == [] and setup.machine.looks == 1 and setup.machine.notes == []
    assert time.monotonic() - began < 25  # who waits is answered when that is known, and not at the end of 30 s


def test_one_that_failed_by_itself(setup: Setup) -> None:
    setup.machine.answers.clear()
    setup.event("die", exitCode="1")
    assert not setup.oom._looking


def test_one_that_goes_on_being_killed_is_told_once(setup: Setup) -> None:
    setup.machine.log = own()
    for _ in range(5):
        setup.now += 100
        setup.ends()
        setup.told()
    setup.now += 1
    setup.machine.log = own(limit=128 << 10)  # docker update
    (found,) = setup.ends()
    assert len(setup.machine.notes) == 1
    assert found["at"] == setup.now and "256mb" in found["hint"]  # who has just lost it hears of it all the same
    setup.now += 700
    setup.ends()
    assert len(setup.machine.notes) == 2


def test_many_that_end_at_once_are_one_look_or_two(setup: Setup) -> None:
    setup.machine.answers.clear()
    names = [f"{number:064x}" for number in range(100)]
    others = set(threading.enumerate())  # of tests before
    setup.machine.log = "".join(own(name) for name in names[:18])
    for name in names:
        setup.event("die", name[-3:], name, exitCode="137")
    threads = [thread for thread in set(threading.enumerate()) - others if thread.name == "oom"]
    setup.machine.answers.set()
    until(lambda: not setup.oom._looking)
    assert len(threads) == 1 and setup.machine.looks <= 2
    assert [entry["id"] for entry in setup.oom.to_json()] == names[:18]


def test_who_waits_hears_when_it_is_known(setup: Setup) -> None:
    setup.machine.log = own()
    setup.machine.answers.clear()
    setup.event("die", exitCode="137")
    assert setup.oom.to_json() == []  # who only asks how the machine is waits for nothing
    threading.Timer(0.5, setup.machine.answers.set).start()
    assert len(setup.oom.to_json(since=setup.now, within=0.05)) == 1  # it was heard of: then the guest has its time
    began = time.monotonic()
    assert len(setup.oom.to_json(since=setup.now + 1, within=0.2)) == 1  # an older one is none of it
    assert time.monotonic() - began > 0.15


def test_a_look_that_fails_is_not_the_last(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.machine, "note", lambda _text: 1 / 0)
    setup.machine.log = own() + own(OTHER)
    setup.ends()
    until(lambda: not setup.oom._looking)
    monkeypatch.undo()
    setup.now += 1
    assert [entry["container"] for entry in setup.ends("db", OTHER)] == ["db"] and len(setup.machine.notes) == 1


def test_other_events_are_none_of_it(setup: Setup) -> None:
    setup.event("start")
    setup._hear({"Type": "image", "Action": "oom", "Actor": {"ID": ID, "Attributes": {}}})
    assert setup.machine.looks == 0 and not setup.oom._looking and {"oom", "die"} <= set(FILTERS["event"])


SHORT = Kill(f"/docker/{ID}", f"/docker/{ID}", 64 << 20)
NONE_LEFT = Kill(f"/docker/{ID}", "", 0)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("110.00 200.00\n" + own(), [SHORT]),
        ("170.00 200.00\n" + own(), []),  # long ago: a container of that ID was killed by hand since
        ("9000.00 1.00\n" + own(OTHER) + own(at=" 8999.1"), [SHORT]),
        ("110.00 1.00\n" + ALL.format(at="  101.0", id=ID), [NONE_LEFT]),
        ("110.00 1.00\n" + own() + ALL.format(at="  101.0", id=ID), [SHORT, NONE_LEFT]),
        ("", []),
        ("sh: cat: not found\n", []),
    ],
)
def test_what_the_kernel_says(said: str, found: list[Kill]) -> None:
    assert kills(said) == found


@pytest.mark.parametrize(
    ("short", "whose", "allowed"),
    [
        (f"/docker/{ID}", f"/docker/{ID}/deep", 64 << 20),  # containers of its own
        (f"/docker/{ID}/deep", f"/docker/{ID}/deep", None),
        ("/all", f"/all/{ID}", None),  # --cgroup-parent
        ("", f"/docker/{ID}", 0),
    ],
)
def test_whose_memory_was_short(short: str, whose: str, allowed: int | None) -> None:
    assert Kill(whose, short, 64 << 20).allowed(ID) == allowed


@pytest.mark.parametrize(
    ("code", "ago", "before", "told"),
    [
        (137, 0, 15, True),
        (137, 5, 15, False),  # another one, before this began
        (137, 0, -1, False),  # while this went on, and long before it ended
        (1, 0, 15, False),
    ],
)
def test_who_waited_for_it_hears_what_helps(
    keeper: FakeKeeper, wherry: Callable[..., Said], monkeypatch: pytest.MonkeyPatch,
    code: int, ago: float, before: float, told: bool,
) -> None:  # fmt: skip
    def client(_request: dict[str, Any], _folder: Path) -> tuple[int, bytes, bytes]:
        entry = {"at": time.time() - ago, "text": "a process of web was killed", "hint": "wherry config set memory 4G"}
        keeper.oom = [entry]
        return code, b"", b""

    monkeypatch.setattr(proxy, "_ENDED_WITHIN", before)
    keeper.client = client
    said = wherry("run", "x")
    assert said.code == code
    assert said.err == ("wherry: a process of web was killed.   wherry config set memory 4G\n" if told else "")
    asked = [request["oom_since"] for request in keeper.requests if request.get("oom_since") is not None]
    assert asked == [pytest.approx(time.time(), abs=60)] * (code == 137)  # the keeper waits until it is known
