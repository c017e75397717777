"""A container that ran out of memory: what is kept of it, and who hears of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from launcher.config import GIB, MachineConfig
from launcher.errors import ConnectionLost
from launcher.keeper import oom as module
from launcher.keeper.events import FILTERS, Event, Events
from launcher.keeper.oom import Oom
from launcher.ssh.transport import Connection
from tests.conftest import Said
from tests.fakes import FakeKeeper

ID = "c" * 64


class Machine:
    config = MachineConfig(arch="amd64", cpus=1, memory=2 * GIB, iso="a" * 64)

    def __init__(self) -> None:
        self.notes: list[str] = []

    def connection(self) -> Connection:
        return cast(Connection, None)

    def note(self, text: str, *, warning: bool = False) -> None:
        assert not warning
        self.notes.append(text)


class Setup:
    def __init__(self) -> None:
        self.machine, self.events, self.now = Machine(), Events(), 1000.0
        self.oom = Oom(self.machine, self.events, lambda: self.now)
        self._hear = self.events._subscribers[0][0]

    def kill(self, name: str = "web", container: str = ID, **other: Any) -> None:
        event: Event = {"Type": "container", "Action": "oom", "Actor": {"ID": container, "Attributes": {"name": name}}, **other}
        self._hear(event)


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> Setup:
    def described(_connection: Connection, container: str) -> dict[str, Any]:
        if container == "gone":
            raise ConnectionLost("no such container.")
        return {"HostConfig": {"Memory": 64 << 20 if container == ID else 0}}

    monkeypatch.setattr(module, "_described", described)
    return Setup()


def test_a_limit_of_its_own(setup: Setup) -> None:
    setup.kill()
    assert setup.machine.notes == [
        "a process of web was killed: the container may have 64 MB of memory: docker run --memory 128mb …"
    ]


def test_the_machine_is_too_small(setup: Setup) -> None:
    setup.kill("db", "d" * 64)
    (found,) = setup.oom.to_json()
    assert found["text"] == "a process of db was killed: the machine's 2 GB of memory are used"
    assert found["hint"] == "wherry config set memory 4G"


def test_one_that_is_gone_already(setup: Setup) -> None:
    setup.kill("", "gone")
    (found,) = setup.oom.to_json()
    assert found["container"] == "gone" and "docker run --memory" in found["hint"] and "config set memory 4G" in found["hint"]


def test_one_that_goes_on_being_killed_is_told_once(setup: Setup) -> None:
    for _ in range(5):
        setup.now += 100
        setup.kill()
    assert len(setup.machine.notes) == 1
    assert setup.oom.to_json()[0]["at"] == setup.now  # who has just lost it hears of it all the same
    setup.now += 700
    setup.kill()
    assert len(setup.machine.notes) == 2


def test_other_events_are_none_of_it(setup: Setup) -> None:
    setup.kill(Action="die")
    setup.kill(Type="image")
    assert setup.machine.notes == [] and "oom" in FILTERS["event"]


@pytest.mark.parametrize(("code", "ago", "told"), [(137, 0, True), (137, 60, False), (1, 0, False)])
def test_who_waited_for_it_hears_what_helps(
    keeper: FakeKeeper, wherry: Callable[..., Said], code: int, ago: float, told: bool
) -> None:
    def client(_request: dict[str, Any], _folder: Path) -> tuple[int, bytes, bytes]:
        entry = {"at": time.time() - ago, "text": "a process of web was killed", "hint": "wherry config set memory 4G"}
        keeper.oom = [entry]
        return code, b"", b""

    keeper.client = client
    said = wherry("run", "x")
    assert said.code == code
    assert said.err == ("wherry: a process of web was killed.   wherry config set memory 4G\n" if told else "")


def test_the_word_of_it_may_come_after_the_containers_end(keeper: FakeKeeper, wherry: Callable[..., Said]) -> None:
    class Late(list[dict[str, Any]]):
        """Told from the second look on."""

        looks = 0

        def __iter__(self) -> Iterator[dict[str, Any]]:
            self.looks += 1
            return super().__iter__() if self.looks > 1 else iter(())

    told = Late()

    def client(_request: dict[str, Any], _folder: Path) -> tuple[int, bytes, bytes]:
        told.append({"at": time.time(), "text": "a process of web was killed", "hint": "wherry config set memory 4G"})
        keeper.oom = told
        return 137, b"", b""

    keeper.client = client
    said = wherry("run", "x")
    assert said.code == 137 and said.err == "wherry: a process of web was killed.   wherry config set memory 4G\n"
