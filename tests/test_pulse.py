"""Time that jumps is noticed by the keeper's timer, in either clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from launcher.keeper import pulse
from launcher.keeper.pulse import Pulse


class Clocks:
    """The system's, moved at will."""

    def __init__(self) -> None:
        self.wall = self.clock = 0.0

    def module(self) -> SimpleNamespace:
        return SimpleNamespace(time=lambda: time.time() + self.wall, monotonic=lambda: time.monotonic() + self.clock)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made = Clocks()
    monkeypatch.setattr(pulse, "_TICK", 0.02)
    monkeypatch.setattr(pulse, "time", made.module())
    return made


class Beaten:
    def __init__(self) -> None:
        self.jumps: list[float] = []
        self.jumped = threading.Event()
        self.ticks = self.looks = 0
        self.pulse = Pulse(self._jump)
        self.pulse.every_second(self._tick)
        self.pulse.every_few(self._look)
        self.enough = threading.Event()
        self.pulse.start()

    def _jump(self, by: float) -> None:
        self.jumps.append(by)
        self.jumped.set()
        raise RuntimeError("one part's trouble")

    def _tick(self) -> None:
        self.ticks += 1
        if self.ticks == 10:
            self.enough.set()
        raise RuntimeError("one part's trouble")

    def _look(self) -> None:
        self.looks += 1


@pytest.fixture
def beaten(clocks: Clocks) -> Iterator[Beaten]:
    made = Beaten()
    yield made
    made.pulse.stop()


def test_a_sleep_moves_the_wall_clock_alone(clocks: Clocks, beaten: Beaten) -> None:
    clocks.wall += 3600
    assert beaten.jumped.wait(10)
    assert beaten.jumps[0] == pytest.approx(3600, abs=1)


def test_a_clock_that_is_set_back(clocks: Clocks, beaten: Beaten) -> None:
    clocks.wall -= 60
    assert beaten.jumped.wait(10)
    assert beaten.jumps[0] == pytest.approx(-60, abs=1)


def test_standing_still_moves_both(clocks: Clocks, beaten: Beaten) -> None:
    # As after SIGSTOP, or a sleep where the monotonic clock goes on.
    clocks.wall += 30
    clocks.clock += 30
    assert beaten.jumped.wait(10)
    assert beaten.jumps[0] == pytest.approx(30, abs=1)


def test_trouble_at_a_jump_is_not_the_end(clocks: Clocks, beaten: Beaten) -> None:
    for _ in range(2):
        clocks.wall += 3600
        assert beaten.jumped.wait(10)
        beaten.jumped.clear()
    assert beaten.enough.wait(10)


def test_nothing_jumps_and_looks_are_rarer_than_ticks(beaten: Beaten) -> None:
    assert beaten.enough.wait(10)
    assert beaten.jumps == []
    assert 1 <= beaten.looks <= beaten.ticks / 4
