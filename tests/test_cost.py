"""What a machine costs: real processes, and a clock that is ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from launcher.keeper.cost import Cost
from tests.conftest import Said
from tests.fakes import FakeKeeper


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def spend(seconds: float) -> None:
    """Processor time of our own."""
    end = sum(os.times()[:2]) + seconds
    while sum(os.times()[:2]) < end:
        pass


def test_the_last_minute_and_no_more() -> None:
    clock = Clock()
    cost = Cost(lambda: {"us": os.getpid()}, clock)
    assert cost.to_json()["cpu"] is None
    spend(1.2)
    cost.look()
    for _ in range(40):
        clock.now += 5
        cost.look()
    spend(0.6)
    found = cost.to_json()
    assert 60 <= found["seconds"] < 75  # what was used before is forgotten
    assert 100 * 0.6 / 75 <= found["cpu"] < 100 * 1.2 / 60
    assert found["memory"] == found["processes"]["us"] > 10_000_000


def test_soon_after_the_start_nothing_is_made_up() -> None:
    clock = Clock()
    cost = Cost(lambda: {"us": os.getpid()}, clock)
    cost.look()
    clock.now += 4
    assert (cost.to_json()["cpu"], cost.to_json()["seconds"]) == (None, 0)
    clock.now += 2
    assert cost.to_json()["seconds"] == 6


def test_processes_come_and_go() -> None:
    clock = Clock()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        pids = {"us": os.getpid(), "child": child.pid, "none": 0}
        cost = Cost(lambda: pids, clock)
        cost.look()
        clock.now += 10
        assert set(cost.to_json()["processes"]) == {"us", "child"}
        assert child.stdin is not None
        child.communicate(b"\n")
    cost.look()
    clock.now += 10
    found = cost.to_json()
    assert set(found["processes"]) == {"us"} and found["cpu"] >= 0


@pytest.mark.parametrize(
    ("seconds", "cpu", "words"),
    [(60, 1.53, ", 1.5 % of a CPU over the last minute"), (20, 80.0, ", 80.0 % of a CPU over the last 20 s"), (0, None, "")],
)
def test_status_says_it(keeper: FakeKeeper, wherry: Callable[..., Said], seconds: int, cpu: float | None, words: str) -> None:
    keeper.cost = {
        "memory": 823_000_000,
        "processes": {"qemu": 770_000_000, "keeper": 53_000_000},
        "cpu": cpu,
        "seconds": seconds,
    }
    assert f"costs     823 MB of memory (QEMU 770 MB){words}\n" in wherry("status").out
    assert json.loads(wherry("status", "--json").out)["data"]["cost"]["memory"] == 823_000_000
    keeper.cost = None
    assert "costs" not in wherry("status").out
