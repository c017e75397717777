"""How full disks are said to be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import room
from tests.fakes import FakeKeeper

GB = 1_000_000_000


def full(monkeypatch: pytest.MonkeyPatch, total: int, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=total, used=total - free, free=free))


def test_warnings_begin_at_85_per_cent_of_either(monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch, 100 * GB, 16 * GB)
    assert room.warnings(Path("/x"), (100 * GB, 16 * GB)) == []
    full(monkeypatch, 100 * GB, 15 * GB)
    assert room.warnings(Path("/x"), None) == [f"this computer's disk is 85 % full (15.0 GB free in {Path('/x')})"]
    found = room.warnings(Path("/x"), (100 * GB, 41_000_000))
    assert found[1] == "the machine's disk is 99 % full (41 MB free): wherry docker system prune"


@pytest.mark.parametrize(("verb", "state"), [("status", "running"), ("up", "running"), ("up", "starting")])
def test_status_and_up_warn_of_both_disks(
    wherry: Callable[..., Any], keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch, verb: str, state: str
) -> None:
    keeper.status = state

    def said() -> list[str]:
        done = wherry(verb)
        assert done.code == 0, done.err
        return [line for line in (done.out + done.err).splitlines() if "% full" in line]

    full(monkeypatch, 100 * GB, 16 * GB)
    keeper.disk = (100 * GB, 16 * GB)
    assert said() == []
    full(monkeypatch, 100 * GB, 15 * GB)
    keeper.disk = (100 * GB, 5 * GB)
    here, guest = said()
    assert "this computer's disk is 85 % full" in here
    assert "the machine's disk is 95 % full" in guest


def test_a_held_machine_waits_for_room_that_there_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch, 600_000_000, 29_000_000)
    assert not room.is_there(Path("/x"))
    full(monkeypatch, 600_000_000, 30_000_000)
    assert room.is_there(Path("/x"))
    full(monkeypatch, 1000 * GB, 0)
    said = room.held(Path("/x"))
    assert said.message == f"paused: this computer's disk is full (0 bytes free in {Path('/x')})."
    assert "268 MB are free" in (said.hint or "")


def test_a_disk_that_cannot_be_written_for_another_reason() -> None:
    said = room.held(Path("/x"), room.unwritable(Path("/x/data.qcow2"), "Disk quota exceeded"))
    assert said.message == f"paused: this computer cannot write {Path('/x/data.qcow2')} (Disk quota exceeded)."
    assert "goes on by itself" in (said.hint or "")
    assert room.unwritable(Path("/x/data.qcow2"), "") == f"this computer cannot write {Path('/x/data.qcow2')}"
