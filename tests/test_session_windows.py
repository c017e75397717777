"""How the end of a session is heard of on Windows, and held up: the answers to its messages, with a user32 that listens."""

from __future__ import annotations

import threading

import pytest

from launcher.host import _session_windows as session
from launcher.host._session_windows import END, LOGOFF, QUERY, SessionEnd

WINDOW = 7


class User32:
    """What is asked of the system."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def ShutdownBlockReasonCreate(self, window: int, reason: str) -> int:
        self.asked.append(("create", window, reason))
        return 1

    def ShutdownBlockReasonDestroy(self, window: int) -> int:
        self.asked.append(("destroy", window))
        return 1


def no_hold() -> None:
    raise AssertionError("nothing is to be held up")


@pytest.fixture
def user32() -> User32:
    return User32()


def test_the_question_is_answered_with_yes_and_the_reason_is_shown(user32: User32) -> None:
    told: list[str] = []
    end = SessionEnd("it stops", lambda: told.append("told"), user32, no_hold)
    assert end.answer(WINDOW, QUERY, 0, 0) == 1
    assert user32.asked == [("create", WINDOW, "it stops")]
    assert told == []


def test_the_end_is_held_up_until_it_is_over_and_told_once(user32: User32) -> None:
    told, over, answers = threading.Event(), threading.Event(), []
    end = SessionEnd("it stops", told.set, user32, over.wait)
    thread = threading.Thread(target=lambda: answers.append(end.answer(WINDOW, END, 1, LOGOFF)))
    thread.start()
    assert told.wait(60)
    assert answers == []
    told.clear()
    over.set()
    assert end.answer(WINDOW, END, 1, LOGOFF) == 0
    thread.join(60)
    assert answers == [0] and not told.is_set()


def test_an_end_that_does_not_come_takes_the_reason_away(user32: User32) -> None:
    told: list[str] = []
    end = SessionEnd("it stops", lambda: told.append("told"), user32, no_hold)
    assert end.answer(WINDOW, END, 0, 0) == 0
    assert user32.asked == [("destroy", WINDOW)] and told == []


@pytest.mark.parametrize("why", [1, 0x40000001])
def test_an_installer_that_wants_a_file_stops_no_machine(user32: User32, why: int) -> None:
    told: list[str] = []
    end = SessionEnd("it stops", lambda: told.append("told"), user32, no_hold)
    assert end.answer(WINDOW, QUERY, 0, why) == 0
    assert end.answer(WINDOW, END, 1, why) == end.answer(WINDOW, END, 0, why) == 0
    assert user32.asked == [] and told == []


@pytest.mark.parametrize("why", [0, LOGOFF, LOGOFF | 1, 0x40000000, LOGOFF - (1 << 32)], ids=hex)
def test_a_shutdown_and_a_log_off_are_an_end(user32: User32, why: int) -> None:
    told: list[str] = []
    end = SessionEnd("it stops", lambda: told.append("told"), user32, lambda: None)
    assert (end.answer(WINDOW, QUERY, 0, why), end.answer(WINDOW, END, 1, why)) == (1, 0)
    assert told == ["told"]


def test_all_other_messages_are_the_systems(user32: User32) -> None:
    assert SessionEnd("it stops", lambda: None, user32, no_hold).answer(WINDOW, 0x0010, 0, 1) is None


def test_a_session_without_windows_is_no_hindrance(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def no_library() -> User32:
        raise OSError("no desktop")

    monkeypatch.setattr(session, "_user32", no_library)
    session.when_session_ends("it stops", lambda: None)
    assert "the end of the session will not be heard of: no desktop" in caplog.text
