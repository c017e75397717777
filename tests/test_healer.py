"""What is looked at after a sleep and after a connection, and what is said of it: real connections."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.errors import WherryError
from launcher.keeper import clock
from launcher.keeper.healer import Healer, listening
from launcher.keeper.health import Health
from launcher.keeper.link import Link
from tests.engineserver import engine
from tests.guestserver import Guest, guest
from tests.loopback import until
from tests.test_clock import VITALS


class Setup:
    def __init__(self, server: Guest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.health = Health()
        self.link = Link(server.connect)
        self.running = True
        self.healer = Healer(self.link, self.health, lambda: self.running)
        (folder / "vitals.py").write_text(VITALS)
        self._set = lambda off: monkeypatch.setattr(
            clock, "_HELPER", f"exec {sys.executable} {folder / 'vitals.py'} {int(off * 1e9)} 0 {folder / 'log'}"
        )
        self.clock_is_off(0)

    def clock_is_off(self, seconds: float) -> None:
        """Of the guest, from the next connection on."""
        self._set(seconds)

    def begin(self) -> None:
        """The connection is there, and nobody looks at anything because of it."""
        self.running = False
        self.link.get()
        until(lambda: "link-up" not in [thread.name for thread in threading.enumerate()])
        self.running = True

    def woke(self) -> str:
        """What is said after a sleep; empty when nothing is."""
        self.healer.woke(30)
        until(lambda: "woke" not in [thread.name for thread in threading.enumerate()])
        mended = self.health.to_json()["mended"]
        return str(mended["text"]) if mended else ""


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    with guest(tmp_path) as server, engine(tmp_path / "engine.sock") as answering:
        server.engine = answering.path
        made = Setup(server, tmp_path, monkeypatch)
        yield made
        made.link.drop()


@pytest.mark.parametrize(("off", "words"), [(-30.0, "clock set"), (0.0, "clock right")])
def test_after_a_sleep_it_is_told_what_was_done(setup: Setup, off: float, words: str) -> None:
    setup.clock_is_off(off)
    setup.begin()
    assert setup.woke() == f"woke after 30 s: {words}, engine answers"


def test_an_engine_that_does_not_answer_is_not_said_to(setup: Setup, tmp_path: Path) -> None:
    setup.server.engine = tmp_path / "nobody"
    setup.begin()
    assert setup.woke() == "woke after 30 s: clock right"
    assert setup.health.state("engine") == "failed"


def test_the_clock_of_an_image_without_the_helper_is_not_said_to_be_set(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_HELPER", "exit 127")
    setup.begin()
    assert setup.woke() == "woke after 30 s: engine answers"
    assert setup.health.state("clock") is None


def test_the_other_parts_are_looked_at_too(setup: Setup, tmp_path: Path) -> None:
    def broken() -> str:
        raise WherryError("no")

    path = tmp_path / "s.sock"
    setup.healer.check(broken)
    setup.healer.check(listening(path, setup.health))
    setup.begin()
    with socket.socket(socket.AF_UNIX) as stream:
        stream.bind(str(path))
        stream.listen()
        assert setup.woke().endswith("engine answers, socket listens")
        assert setup.health.state("socket") == "ok"
    path.unlink()
    assert setup.woke().endswith("engine answers")
    assert setup.health.state("socket") == "failed"


def test_a_new_connection_sets_the_clock_at_once(setup: Setup) -> None:
    setup.clock_is_off(-30)
    setup.link.get()
    until(lambda: setup.health.state("clock") == "ok")
    until(lambda: setup.health.state("engine") == "ok")
    assert "step" in (setup.server.folder / "log").read_text()


def test_the_engine_is_asked_whatever_becomes_of_the_clock(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_HELPER", "exit 1")
    setup.link.get()
    until(lambda: setup.health.state("engine") == "ok")
    assert setup.health.state("clock") is None
