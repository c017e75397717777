"""Waiting for the end of a keeper: not longer than it takes, and never for the next one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher import host, proc
from launcher.errors import NoProgress
from launcher.machine import keepers, run, succession
from launcher.report import SilentReporter
from tests.fakes import FakeKeeper, make_machine
from tests.systems import not_on_windows


def test_until_the_lock_is_free(keeper: FakeKeeper) -> None:
    keeper.status = "stopping"
    assert keepers.status(keeper.directory) == "stopping"
    timer = threading.Timer(0.3, keeper.let_go)
    timer.start()
    keepers.wait_gone(keeper.directory)
    assert not keeper.directory.keeper_lives()
    assert keepers.status(keeper.directory) is None
    timer.join()


def test_one_that_listens_no_more_and_has_not_ended(keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper.let_go()
    lock = host.current().lock(keeper.directory.lock_file, wait=False)
    assert lock is not None
    monkeypatch.setattr(keepers, "_ENDS_WITHIN", 0.3)
    with pytest.raises(NoProgress, match="does not end"):
        keepers.wait_gone(keeper.directory)
    os.close(lock)
    keepers.wait_gone(keeper.directory)


def test_the_next_one_is_not_waited_for(keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    keepers.wait_gone(keeper.directory)
    monkeypatch.setattr(keepers, "_ENDS_WITHIN", 0.3)
    with pytest.raises(NoProgress):
        keepers.wait_gone(keeper.directory, alone=True)


@not_on_windows("a folder with an open file keeps its name")
def test_one_without_our_lock_is_that_of_a_folder_before(keeper: FakeKeeper) -> None:
    assert keepers.status(keeper.directory) == "running"
    keeper.directory.lock_file.unlink()
    assert keepers.status(keeper.directory) == "stopping"


def test_a_keeper_that_another_was_quicker_than_ends(keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two begin where a command was killed after it had started one."""
    assert run.start_keeper(keeper.directory) is False
    answers = iter([None, "running"])  # the first look came before the other one listened
    monkeypatch.setattr(succession, "serving", lambda *_: next(answers))
    assert run.ensure_keeper(keeper.directory, SilentReporter()) == "running"


class Warned(SilentReporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.mark.parametrize(("keeper", "warnings"), [("tests.tiedkeeper", [run._TIED]), ("launcher.keeper", [])])
def test_a_keeper_that_ends_with_the_terminal_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch, keeper: str, warnings: list[str]
) -> None:
    """It alone knows: the job of its starter is that of a launcher, and lets everybody go."""
    directory, report = make_machine(), Warned()
    monkeypatch.setattr(run, "KEEPER", keeper)
    assert run.start_keeper(directory, "stop", report)
    keepers.wait_gone(directory)
    assert report.warnings == warnings


class Interrupted:
    """What a keeper says, to a user who presses Ctrl-C while it is waited for."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __enter__(self) -> Interrupted:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def readline(self) -> bytes:
        self._stream.readline()
        raise KeyboardInterrupt


def test_nothing_waits_for_a_keeper_after_an_interrupt(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is no daemon would keep the command from ending, and kill the keeper then."""
    directory, spawn, before = make_machine(), proc.spawn, set(threading.enumerate())
    spawned: list[proc.Process] = []

    def interrupted(*words: Any, **options: Any) -> proc.Process:
        spawned.append(spawn(*words, **options))
        spawned[0].stdout = Interrupted(spawned[0].stdout)  # type: ignore[assignment]
        return spawned[0]

    monkeypatch.setattr(proc, "spawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.start_keeper(directory, "stop")
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive(), thread
    keepers.wait_gone(directory)
    spawned[0].wait(60)


def test_the_terminals_refusal_is_told_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, report = make_machine(), Warned()
    monkeypatch.setattr(run, "KEEPER", "tests.tiedkeeper")
    spawn = proc.spawn

    def refused(*words: Any, on_tied: Callable[[], None], **options: Any) -> proc.Process:
        on_tied()
        return spawn(*words, **options)

    monkeypatch.setattr(proc, "spawn", refused)
    assert run.start_keeper(directory, "stop", report)
    keepers.wait_gone(directory)
    assert report.warnings == [run._TIED]
