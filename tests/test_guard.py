"""A keeper notices that its folder is gone, and that its lock file is."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import host
from launcher.keeper import guard
from launcher.keeper.guard import Guard
from launcher.store import MachineDir
from tests.fakes import make_machine


class Kept:
    def __init__(self, directory: MachineDir) -> None:
        self.directory = directory
        self.lost = threading.Event()
        self.lock = host.current().lock(directory.lock_file, wait=False)
        assert self.lock is not None
        self.guard = Guard(directory, self.lock, self.lost.set)
        self.guard.start()

    def close(self) -> None:
        self.guard.stop()
        for lock in self.guard._locks:
            os.close(lock)


@pytest.fixture
def kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.setattr(guard, "_EVERY", 0.02)
    one = Kept(make_machine())
    yield one
    one.close()


def test_a_folder_that_is_moved(kept: Kept) -> None:
    kept.directory.path.rename(kept.directory.path.with_name("moved"))
    assert kept.lost.wait(10)


def test_another_folder_in_its_place(kept: Kept) -> None:
    kept.directory.path.rename(kept.directory.path.with_name("moved"))
    kept.directory.path.mkdir()
    assert kept.lost.wait(10)


def test_a_lock_file_that_is_removed_is_made_anew(kept: Kept) -> None:
    kept.directory.lock_file.unlink()
    while not kept.directory.keeper_lives():
        pass
    assert not kept.lost.is_set()
