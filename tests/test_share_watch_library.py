"""The backend of macOS and Windows, which watches trees: here by the library's observer for Linux."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.keeper.shares.watch_library import Library
from launcher.sftp.events import ATTRIBUTES, CREATED, DELETED, LOST, MODIFIED, RENAMED, Event
from tests.watching import Watching, watching

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="written for the observer of Linux")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Watching]:
    (tmp_path / "code/src").mkdir(parents=True)
    with watching(tmp_path, Library()) as made:
        made.watcher.bound({"home": [b"/code"]})
        assert not made.share.folder(b"/code")  # nothing is promised
        yield made


def there(home: Watching, name: str) -> Path:
    path = home.root / "code" / name
    path.write_text("text")
    home.settled(b"/code")
    return path


def test_the_kinds(home: Watching) -> None:
    path = home.root / "code/file"
    path.write_text("text")
    assert home.settled(b"/code") == [Event(CREATED, False, b"/code/file")]
    path.write_text("other")
    assert home.settled(b"/code") == [Event(MODIFIED, False, b"/code/file")]
    path.chmod(0o600)
    assert home.settled(b"/code") == [Event(ATTRIBUTES, False, b"/code/file")]
    path.rename(path.with_name("new"))
    assert home.settled(b"/code") == [Event(RENAMED, False, b"/code/file", b"/code/new")]
    path.with_name("new").unlink()
    assert home.settled(b"/code") == [Event(DELETED, False, b"/code/new")]


def test_only_what_is_looked_at_is_told(home: Watching) -> None:
    (home.root / "code/src/unseen").write_text("")
    assert home.settled(b"/code") == []
    home.share.folder(b"/code/src")
    (home.root / "code/src/seen").write_text("")
    assert home.settled(b"/code") == [Event(CREATED, False, b"/code/src/seen")]


def test_what_the_guest_did_is_no_event(home: Watching) -> None:
    path = there(home, "file")
    path.write_text("guest")
    home.made(b"/code/file")
    path.rename(path.with_name("to"))
    home.made(b"/code/file", b"/code/to")
    assert home.settled(b"/code") == []


def test_a_folder_that_moves_is_looked_at_anew(home: Watching) -> None:
    home.share.folder(b"/code/src")
    (home.root / "code/src/file").write_text("")
    home.settled(b"/code")
    (home.root / "code/src").rename(home.root / "code/lib")
    assert home.settled(b"/code") == [
        Event(LOST, True, b"/code/src"), Event(RENAMED, True, b"/code/src", b"/code/lib"), Event(LOST, True, b"/code/lib"),
    ]  # fmt: skip


def test_what_is_not_bound_any_more_is_lost_and_another_begins(home: Watching) -> None:
    (home.root / "other").mkdir()
    home.watcher.bound({"home": [b"/other", b"/none"]})
    home.told.wait(lambda events: events == [Event(LOST, True, b"/code")])
    home.told.clear()
    home.share.folder(b"/code")
    home.share.folder(b"/other")
    (home.root / "code/unheard").write_text("")
    (home.root / "other/heard").write_text("")
    assert home.settled(b"/other") == [Event(CREATED, False, b"/other/heard")]


def test_a_bound_folder_that_is_removed_is_lost(home: Watching) -> None:
    (home.root / "code/src").rmdir()
    (home.root / "code").rmdir()
    home.told.wait(lambda events: events[-1:] == [Event(LOST, True, b"/code")])
    home.watcher.bound({})
