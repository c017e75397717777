"""A QEMU that dies is started again once; the supervisor's own QEMU is played by its watch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest

from launcher import seed
from launcher.errors import ConnectionLost
from launcher.keeper import revival, starter
from launcher.keeper.supervisor import Supervisor
from tests.fakes import make_machine


class Guest:
    def close(self) -> None: ...


@pytest.fixture
def keeper(home: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    made = Supervisor(make_machine())
    made.guest = cast(Any, Guest())
    made.update(status="running")
    made.starts = []  # type: ignore[attr-defined]

    def start(keeper: Supervisor) -> None:
        keeper.guest = cast(Any, Guest())
        cast(Any, keeper).starts.append(keeper.status)
        keeper.watch.on_exit(-9)  # and dies again

    monkeypatch.setattr(starter, "start", start)
    return made


def starts(keeper: Supervisor) -> list[str]:
    return cast(list[str], cast(Any, keeper).starts)


def test_once_and_not_without_end(keeper: Supervisor) -> None:
    keeper.watch.on_exit(-9)
    revival.watch_over(keeper)
    assert starts(keeper) == ["starting"]
    assert keeper.state.restarts == {revival.CAUSE: 1}
    assert any("signal 9" in note and "started again" in note for note in keeper.state.notes)
    assert "started again" in keeper.health.to_json()["mended"]["text"]


def test_much_later_it_is_another_one(keeper: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revival, "SOON", -1.0)
    keeper.watch.on_exit(-9)

    def enough(restarts: int) -> None:
        if restarts == 3:
            keeper.request_stop(force=True)

    ready = keeper.is_ready
    monkeypatch.setattr(keeper, "is_ready", lambda: (ready(), enough(len(starts(keeper)))))
    revival.watch_over(keeper)
    assert len(starts(keeper)) == 3


@pytest.mark.parametrize("why", ["stop", "guest", "leave", "action"])
def test_an_end_that_was_asked_for_is_the_end(keeper: Supervisor, why: str) -> None:
    if why == "stop":
        keeper.request_stop(force=False)
    elif why == "guest":
        keeper.watch.on_line("wherry-stop begin")
    elif why == "leave":
        keeper.leave()
    else:
        keeper.disk_action = seed.READ_ONLY
    keeper.watch.on_exit(0)
    revival.watch_over(keeper)
    assert starts(keeper) == []


def test_who_asks_meanwhile_waits_for_the_new_start(keeper: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper.is_ready()
    keeper.wait_ready(1)
    go_on, begun = threading.Event(), threading.Event()

    def start(keeper: Supervisor) -> None:
        keeper.guest = cast(Any, Guest())
        begun.set()
        assert go_on.wait(10)

    monkeypatch.setattr(starter, "start", start)
    keeper.watch.on_exit(-9)
    thread = threading.Thread(target=revival.watch_over, args=(keeper,))
    thread.start()
    assert begun.wait(10)
    waited: list[bool] = []
    waiter = threading.Thread(target=lambda: (keeper.wait_ready(10), waited.append(True)))
    waiter.start()
    waiter.join(0.1)
    assert waited == []
    go_on.set()
    waiter.join(10)
    assert waited == [True]
    keeper.request_stop(force=True)
    thread.join(10)


def test_what_is_opened_meanwhile_is_opened_in_the_new_one(keeper: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def opened(_make: Any) -> str:
        tried.append(keeper.status)
        if len(tried) == 1:  # QEMU dies
            keeper.update(status="starting")
            keeper.journal.begin()
            threading.Timer(0.1, keeper.is_ready).start()
            raise ConnectionLost("it ended")
        return "made"

    monkeypatch.setattr(keeper.link, "open", opened)
    keeper.is_ready()
    assert keeper.open(lambda _connection: "not asked") == "made"
    assert tried == ["running", "running"]
