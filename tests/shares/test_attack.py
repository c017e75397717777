"""The attack of root in the guest, on the file server alone: the same script that runs in a machine (tests/vm)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.shares.attack import ATTACKS, Plan, run
from tests.shares.scene import HIDDEN, MISSING, STARTUP, Scene, Swapper
from tests.shares.served import serving


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_nothing_outside_is_read_written_or_listed(scene: Scene, tmp_path: Path) -> None:
    places = (*STARTUP, *MISSING)
    with serving(scene.home, tmp_path, hidden=HIDDEN, protected=places) as served:
        before, descriptors = scene.state(), len(os.listdir("/proc/self/fd"))
        with Swapper(scene) as swapper:
            told = run(served.dial, Plan(**scene.plan(handles=2000)))  # type: ignore[arg-type]
        assert {name: found for name, found in told.items() if found["leaks"] or found["broken"]} == {}
        assert scene.state() == before
        assert set(told) == set(ATTACKS) and swapper.swaps > 100
        assert all(found["tried"] for found in told.values()), told
        served.end()
        # The tree itself holds the places that it guards, no more.
        assert len(os.listdir("/proc/self/fd")) <= descriptors + len(HIDDEN) + len(places) + 2


def test_the_attack_finds_a_door_that_is_open(scene: Scene, tmp_path: Path) -> None:
    before = scene.state()
    with serving(scene.home, tmp_path) as served:
        told = run(served.dial, Plan(**scene.plan(handles=10)))  # type: ignore[arg-type]
    for name in ("hidden folders", "parents of hidden folders", "places that run code"):
        assert told[name]["leaks"] or told[name]["broken"], name
    assert scene.state() != before
