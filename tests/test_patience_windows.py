"""Files that a virus scanner, or another program, has open on Windows."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from launcher import host
from launcher.host import _patience_windows as patience
from launcher.host._patience_windows import patiently, remove_tree, rename, replace
from tests.test_starts import of_windows

HELD = 32


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize("number", [5, 32, 33, 145])
def test_what_is_held_for_a_moment_is_tried_again(number: int, naps: list[float]) -> None:
    def work() -> None:
        if len(naps) < 3:
            raise of_windows(number)

    patiently(work)
    assert len(naps) == 3


def test_what_stays_held_is_told_after_a_second(naps: list[float]) -> None:
    def work() -> None:
        raise of_windows(HELD, PermissionError)

    with pytest.raises(PermissionError):
        patiently(work)
    assert sum(naps) == pytest.approx(1.0)


def test_all_else_is_told_at_once(naps: list[float]) -> None:
    def work() -> None:
        raise of_windows(2, FileNotFoundError)

    with pytest.raises(FileNotFoundError):
        patiently(work)
    assert naps == []


def test_a_tree_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        remove_tree(tmp_path / "gone")


@pytest.mark.skipif(host.current().NAME != "windows", reason="elsewhere an open file hinders nobody")
@pytest.mark.parametrize("what", ["replace", "rename", "remove"])
def test_a_file_is_let_go_meanwhile(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a").write_text("a")
    (folder / "b").write_text("b")
    scanner = (folder / "b").open("rb")
    tried = threading.Event()
    monkeypatch.setattr(patience.time, "sleep", lambda _seconds: (tried.set(), scanner.close()))
    match what:
        case "replace":
            replace(folder / "a", folder / "b")
            assert (folder / "b").read_text() == "a"
        case "rename":
            rename(folder, tmp_path / "g")
            assert (tmp_path / "g" / "b").read_text() == "b"
        case _:
            remove_tree(folder)
            assert not folder.exists()
    scanner.close()
    assert tried.is_set() or what == "rename"  # Wine moves a folder whatever is open in it
