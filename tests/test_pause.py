"""A machine that is held because its disk finds no space: told once, tried again until the same write holds."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from launcher import room
from launcher.errors import ConnectionLost
from launcher.keeper import pause
from launcher.keeper.pause import Pause

ERROR = {"action": "stop", "nospace": True, "operation": "write"}


class Qemu:
    """Held until there is space; each `cont` before that fails with the same event."""

    def __init__(self) -> None:
        self.space = False
        self.ended = False
        self.tries = 0
        self.status = "io-error"
        self.tried = threading.Event()
        self.told: list[bool] = []
        self.over = threading.Event()
        self.pause = Pause(Path("/"), self._tell)

    def _tell(self, held: bool) -> None:
        self.told.append(held)
        if not held:
            self.over.set()

    def fail(self) -> None:
        self.pause.on_event("STOP", {}, self.monitor)
        self.pause.on_event("BLOCK_IO_ERROR", ERROR, self.monitor)

    def monitor(self) -> Qemu:
        return self

    @staticmethod
    def looked_twice(looked: threading.Event) -> bool:
        for _ in range(3):
            looked.clear()
            if not looked.wait(10):
                return False
        return True

    def execute(self, command: str, /, *, timeout: float = 30, **arguments: Any) -> Any:
        if self.ended:
            raise ConnectionLost("QEMU's monitor closed.")
        if command == "query-status":
            return {"status": self.status}
        assert command == "cont"
        self.tries += 1
        if not self.space:
            self.fail()
        if self.tries >= 3:
            self.tried.set()
        return {}


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch) -> Qemu:
    monkeypatch.setattr(pause, "_TRIES_EVERY", 0.01)
    monkeypatch.setattr(pause, "_FAILS_WITHIN", 0.05)
    return Qemu()


def test_it_is_told_once_and_goes_on_when_there_is_space(qemu: Qemu) -> None:
    qemu.fail()
    assert qemu.tried.wait(10)
    assert qemu.told == [True]
    qemu.space = True
    assert qemu.over.wait(10)
    assert qemu.told == [True, False]


def test_another_time_is_told_again(qemu: Qemu) -> None:
    for _ in range(2):
        qemu.space = False
        qemu.tried.clear()
        qemu.over.clear()
        qemu.fail()
        assert qemu.tried.wait(10)
        qemu.space = True
        assert qemu.over.wait(10)
        for thread in threading.enumerate():
            if thread.name == "pause":
                thread.join(10)
    assert qemu.told == [True, False, True, False]


def test_an_error_that_the_guest_is_told_of_is_the_guests(qemu: Qemu) -> None:
    qemu.pause.on_event("BLOCK_IO_ERROR", {"action": "report"}, qemu.monitor)
    assert qemu.told == []


def test_a_qemu_that_ends_while_it_is_held(qemu: Qemu) -> None:
    qemu.fail()
    assert qemu.tried.wait(10)
    qemu.ended = True
    for thread in threading.enumerate():
        if thread.name == "pause":
            thread.join(10)
    assert qemu.told == [True]


def test_one_that_was_taken_over(qemu: Qemu) -> None:
    assert qemu.pause.found_held(qemu)
    qemu.space = True
    assert not qemu.pause.found_held(qemu)
    qemu.status, tries = "running", qemu.tries
    assert not qemu.pause.found_held(qemu)
    assert qemu.tries == tries


def test_qemu_is_not_asked_while_the_file_system_is_full(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    there, looked = threading.Event(), threading.Event()

    def is_there(_folder: Path) -> bool:
        looked.set()
        return there.is_set()

    monkeypatch.setattr(room, "is_there", is_there)
    qemu.fail()
    assert qemu.looked_twice(looked)
    assert (qemu.told, qemu.tries) == ([True], 0)
    qemu.space = True
    there.set()
    assert qemu.over.wait(10)
    assert (qemu.told, qemu.tries) == ([True, False], 1)
