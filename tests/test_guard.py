"""A keeper notices that its folder is gone, and that its lock file is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import host
from launcher.keeper.guard import Guard
from launcher.store import MachineDir
from tests.fakes import make_machine
from tests.systems import not_on_windows


class Kept:
    def __init__(self, directory: MachineDir) -> None:
        self.directory = directory
        self.lost: list[bool] = []
        self.lock = host.current().lock(directory.lock_file, wait=False)
        assert self.lock is not None
        self.guard = Guard(directory, self.lock, lambda: self.lost.append(True))
        self.guard.look()
        assert not self.lost

    def close(self) -> None:
        for lock in self.guard._locks:
            os.close(lock)


@pytest.fixture
def kept(home: Path) -> Iterator[Kept]:
    one = Kept(make_machine())
    yield one
    one.close()


def test_a_folder_that_is_moved(kept: Kept) -> None:
    kept.directory.path.rename(kept.directory.path.with_name("moved"))
    kept.guard.look()
    kept.guard.look()
    assert kept.lost == [True]


def test_another_folder_in_its_place(kept: Kept) -> None:
    kept.directory.path.rename(kept.directory.path.with_name("moved"))
    kept.directory.path.mkdir()
    kept.guard.look()
    assert kept.lost == [True]


@not_on_windows("a locked file cannot be removed")
def test_a_lock_file_that_is_removed_is_made_anew(kept: Kept) -> None:
    kept.directory.lock_file.unlink()
    kept.guard.look()
    assert kept.directory.keeper_lives()
    assert not kept.lost


@not_on_windows("a locked file cannot be removed")
def test_somebody_looks_while_the_lock_file_is_made_anew(kept: Kept) -> None:
    kept.directory.lock_file.unlink()
    looking = host.current().lock(kept.directory.lock_file, wait=False)
    assert looking is not None
    kept.guard.look()
    os.close(looking)
    assert not kept.directory.keeper_lives()
    kept.guard.look()
    assert kept.directory.keeper_lives()
