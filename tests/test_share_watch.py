"""What is told of changes on this computer in folders that containers have, by real inotify."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.sftp.events import ATTRIBUTES, CREATED, DELETED, LOST, MODIFIED, RENAMED, Event
from tests.watching import Watching, watching

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Watching]:
    """The folder /work/code is bound and looked at; /work/code/src and /other are there."""
    for folder in ("work/code/src", "other"):
        (tmp_path / folder).mkdir(parents=True)
    with watching(tmp_path) as made:
        made.watcher.bound({"home": [b"/work/code"]})
        assert made.share.folder(b"/work/code")
        yield made


def file(home: Watching, name: str, text: str = "text") -> Path:
    path = home.root / "work/code" / name
    with home.at_once():
        path.write_text(text)
    return path


def there(home: Watching, name: str) -> Path:
    """A file that nothing more will be told of."""
    path = file(home, name)
    home.settled(b"/work/code")
    return path


# Kinds


def test_a_new_file_is_created_once(home: Watching) -> None:
    file(home, "new")
    assert home.settled(b"/work/code") == [Event(CREATED, False, b"/work/code/new")]


def test_a_new_folder_is_created_and_what_is_in_it_is_nobodys(home: Watching) -> None:
    (home.root / "work/code/new").mkdir()
    (home.root / "work/code/new/inner").write_text("")
    assert home.settled(b"/work/code") == [Event(CREATED, True, b"/work/code/new")]


def test_a_write_in_place_is_modified(home: Watching) -> None:
    path = there(home, "file")
    with path.open("a") as stream:
        stream.write("more")
    assert home.settled(b"/work/code") == [Event(MODIFIED, False, b"/work/code/file")]


def test_a_write_that_is_not_closed_is_modified_at_once_and_its_close_nothing(home: Watching) -> None:
    path = there(home, "file")
    with path.open("r+b", buffering=0) as stream:
        stream.write(b"more")
        assert home.settled(b"/work/code") == [Event(MODIFIED, False, b"/work/code/file")]
    assert home.settled(b"/work/code") == []


def test_a_write_through_a_mapping_is_modified_when_the_file_is_closed(home: Watching) -> None:
    path = there(home, "file")
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        mapped[:4] = b"new!"
    assert home.settled(b"/work/code") == [Event(MODIFIED, False, b"/work/code/file")]


def test_a_change_of_mode_and_of_times_is_attributes(home: Watching) -> None:
    path = there(home, "file")
    path.chmod(0o600)
    assert home.settled(b"/work/code") == [Event(ATTRIBUTES, False, b"/work/code/file")]
    os.utime(path, (1, 1))
    assert home.settled(b"/work/code") == [Event(ATTRIBUTES, False, b"/work/code/file")]


def test_a_deleted_file_is_deleted(home: Watching) -> None:
    there(home, "file").unlink()
    assert home.settled(b"/work/code") == [Event(DELETED, False, b"/work/code/file")]


def test_a_rename_is_a_pair(home: Watching) -> None:
    path = there(home, "file")
    path.rename(path.with_name("other"))
    assert home.settled(b"/work/code") == [Event(RENAMED, False, b"/work/code/file", b"/work/code/other")]


def test_a_rename_between_watched_folders_is_a_pair(home: Watching) -> None:
    assert home.share.folder(b"/work/code/src")
    path = there(home, "file")
    path.rename(path.parent / "src/file")
    assert home.settled(b"/work/code") == [Event(RENAMED, False, b"/work/code/file", b"/work/code/src/file")]


def test_a_rename_out_of_what_is_watched_is_deleted_and_back_is_created(home: Watching) -> None:
    path = there(home, "file")
    path.rename(home.root / "other/file")
    assert home.settled(b"/work/code") == [Event(DELETED, False, b"/work/code/file")]
    (home.root / "other/file").rename(path)
    assert home.settled(b"/work/code") == [Event(CREATED, False, b"/work/code/file")]


def test_a_save_as_editors_do_it(home: Watching) -> None:
    path = there(home, "file")
    other = file(home, "file.new", "better")
    other.rename(path)
    assert home.settled(b"/work/code") == [
        Event(CREATED, False, b"/work/code/file.new"),
        Event(RENAMED, False, b"/work/code/file.new", b"/work/code/file"),
    ]


def test_a_file_that_took_the_place_of_another_is_both(home: Watching) -> None:
    there(home, "file").unlink()
    file(home, "file", "other")
    assert home.settled(b"/work/code") == [
        Event(DELETED, False, b"/work/code/file"), Event(CREATED, False, b"/work/code/file"),
    ]  # fmt: skip


def test_what_came_and_went_is_gone(home: Watching) -> None:
    """Somebody may have looked at it meanwhile."""
    path = home.root / "work/code/short"
    with home.at_once():
        path.write_text("")
        path.unlink()
    assert home.settled(b"/work/code") == [Event(DELETED, False, b"/work/code/short")]


def test_a_link_is_watched_as_a_name_only(home: Watching) -> None:
    link = home.root / "work/code/link"
    link.symlink_to(home.root / "other")
    assert home.settled(b"/work/code") == [Event(CREATED, False, b"/work/code/link")]
    assert not home.share.folder(b"/work/code/link")
    (home.root / "other/file").write_text("")
    assert home.settled(b"/work/code") == []


def test_many_writes_are_few_events(home: Watching) -> None:
    path = there(home, "file")
    with path.open("r+b", buffering=0) as stream:
        for _ in range(5_000):
            stream.write(b"x")
    events = home.settled(b"/work/code")
    assert events and set(events) == {Event(MODIFIED, False, b"/work/code/file")} and len(events) < 500


def test_attributes_of_the_folder_itself(home: Watching) -> None:
    (home.root / "work/code").chmod(0o700)
    assert home.settled(b"/work/code") == [Event(ATTRIBUTES, True, b"/work/code")]


# What is watched


def test_only_what_is_bound_and_looked_at_is_watched(home: Watching) -> None:
    assert not home.share.folder(b"/work") and not home.share.folder(b"/other") and not home.share.folder(b"/work/codes")
    file(home, "src/unseen")
    assert home.settled(b"/work/code") == []
    assert home.share.folder(b"/work/code/src")
    file(home, "src/seen")
    assert home.settled(b"/work/code") == [Event(CREATED, False, b"/work/code/src/seen")]


def test_what_is_not_there_is_not_watched(home: Watching) -> None:
    assert not home.share.folder(b"/work/code/none/at/all")
    file(home, "plain")
    assert not home.share.folder(b"/work/code/plain")


def test_what_is_not_bound_any_more_is_lost(home: Watching) -> None:
    home.watcher.bound({"home": [b"/other"]})
    home.told.wait(lambda events: events == [Event(LOST, True, b"/work/code")])
    assert home.watcher.watches == 0
    assert not home.share.folder(b"/work/code") and home.share.folder(b"/other")


def test_of_two_that_are_bound_one_within_the_other(home: Watching) -> None:
    home.watcher.bound({"home": [b"/work/code", b"/work/code/src"]})
    assert home.share.folder(b"/work/code/src")
    home.watcher.bound({"home": [b"/work/code/src"]})
    home.told.wait(lambda events: events == [Event(LOST, True, b"/work/code")])
    home.told.clear()
    file(home, "unheard")
    file(home, "src/heard")
    assert home.settled(b"/work/code/src") == [Event(CREATED, False, b"/work/code/src/heard")]


def test_the_whole_share_may_be_bound(tmp_path: Path) -> None:
    with watching(tmp_path) as home:
        home.watcher.bound({"home": [b"/"]})
        assert home.share.folder(b"/")
        with home.at_once():
            (tmp_path / "file").write_text("")
        assert home.settled(b"/") == [Event(CREATED, False, b"/file")]


def test_what_is_hidden_is_not_told(tmp_path: Path) -> None:
    with watching(tmp_path) as home:
        share = home.share = home.watcher.share("home", tmp_path, lambda path: b"/." in path and b"/.marker" not in path)
        home.watcher.bound({"home": [b"/"]})
        assert share.folder(b"/")
        (tmp_path / ".secret").write_text("")
        (tmp_path / ".secret").rename(tmp_path / "known")
        assert home.settled(b"/") == [Event(CREATED, False, b"/known")]
        (tmp_path / "known").rename(tmp_path / ".secret")
        assert home.settled(b"/") == [Event(DELETED, False, b"/known")]


def test_two_shares_of_one_folder_each_hear_of_it(home: Watching) -> None:
    other = home.watcher.share("code", home.root / "work/code")
    home.watcher.bound({"home": [b"/work/code"], "code": [b"/"]})
    assert other.folder(b"/")
    file(home, "file")
    home.told.wait(lambda events: len(events) == 2)
    assert sorted(home.told.batches) == [
        ("code", [Event(CREATED, False, b"/file")]), ("home", [Event(CREATED, False, b"/work/code/file")]),
    ]  # fmt: skip
    home.told.clear()
    home.watcher.bound({"home": [b"/work/code"]})
    home.told.wait(lambda events: events == [Event(LOST, True, b"/")])
    file(home, "again")
    assert Event(CREATED, False, b"/work/code/again") in home.settled(b"/work/code")


def test_of_a_file_that_is_bound_its_folder_is_watched_alone(home: Watching) -> None:
    (home.root / "other/inner").mkdir()
    (home.root / "other/file").write_text("")
    home.watcher.bound({"home": [b"/work/code", b"/other/file"]})
    assert home.share.folder(b"/other") and not home.share.folder(b"/other/inner")
    with home.at_once():
        (home.root / "other/file").write_text("new")
    assert home.settled(b"/work/code") == [Event(MODIFIED, False, b"/other/file")]


def test_what_is_bound_by_way_of_a_link_is_watched_where_it_is(home: Watching) -> None:
    (home.root / "link").symlink_to("other")
    home.watcher.bound({"home": [b"/work/code", b"/link"]})
    assert home.share.folder(b"/other") and not home.share.folder(b"/link")


def test_a_share_that_has_taken_the_place_of_another_is_not_forgotten_with_it(home: Watching) -> None:
    before = home.share
    after = home.watcher.share("home", home.root)
    home.watcher.forget("home", before)
    assert after.folder(b"/work/code") and not before.folder(b"/work/code")
    home.watcher.forget("home", after)
    assert not after.folder(b"/work/code") and home.watcher.watches == 0


# Folders that move


def test_a_folder_that_moves_takes_its_watches_with_it(home: Watching) -> None:
    assert home.share.folder(b"/work/code/src")
    (home.root / "work/code/src").rename(home.root / "work/code/lib")
    assert home.settled(b"/work/code") == [
        Event(LOST, True, b"/work/code/src"), Event(RENAMED, True, b"/work/code/src", b"/work/code/lib"),
        Event(LOST, True, b"/work/code/lib"),
    ]  # fmt: skip
    assert home.share.folder(b"/work/code/lib") and not home.share.folder(b"/work/code/src")
    file(home, "lib/file")
    assert home.settled(b"/work/code") == [Event(CREATED, False, b"/work/code/lib/file")]


@pytest.mark.parametrize("moved", ["work", "work/code"])
def test_what_leads_to_a_bound_folder_moves(home: Watching, moved: str) -> None:
    (home.root / moved).rename(home.root / "away")
    (home.root / "work/code").mkdir(parents=True)
    home.told.wait(lambda events: Event(LOST, True, b"/" + moved.encode()) in events)
    home.told.clear()
    assert home.share.folder(b"/work/code")
    (home.root / "away/old").write_text("")
    file(home, "file")
    assert home.settled(b"/work/code") == [Event(CREATED, False, b"/work/code/file")]


def test_a_bound_folder_that_is_removed_is_lost(home: Watching) -> None:
    (home.root / "work/code/src").rmdir()
    (home.root / "work/code").rmdir()
    home.told.wait(lambda events: events[-1:] == [Event(LOST, True, b"/work/code")])
    assert home.watcher.watches == 0


def test_a_folder_that_is_removed_and_made_anew(home: Watching) -> None:
    assert home.share.folder(b"/work/code/src")
    source = home.root / "work/code/src"
    source.rmdir()
    source.mkdir()
    home.settled(b"/work/code")
    assert home.share.folder(b"/work/code/src")
    file(home, "src/file")
    assert home.settled(b"/work/code") == [Event(CREATED, False, b"/work/code/src/file")]


# Echo


def guests(*work: Callable[[Path], object]) -> Callable[[Watching], None]:
    def run(home: Watching) -> None:
        for one in work:
            with home.at_once():
                one(home.root / "work/code")
                home.made(b"/work/code/file", b"/work/code/to", b"/work/code/dir")

    return run


@pytest.mark.parametrize(
    "work",
    [
        guests(lambda at: (at / "file").write_text("guest")),
        guests(lambda at: (at / "file").write_text("guest"), lambda at: (at / "file").write_text("once more")),
        guests(lambda at: (at / "file").chmod(0o600)),
        guests(lambda at: os.utime(at / "file", (5, 5))),
        guests(lambda at: (at / "file").unlink()),
        guests(lambda at: (at / "file").rename(at / "to")),
        guests(lambda at: (at / "to").write_text("guest"), lambda at: (at / "to").rename(at / "file")),
        guests(lambda at: (at / "to").symlink_to("file")),
        guests(lambda at: (at / "dir").mkdir()),
        guests(lambda at: (at / "dir").mkdir(), lambda at: (at / "dir").rmdir()),
        guests(lambda at: (at / "file").unlink(), lambda at: (at / "file").write_text("anew")),
    ],
    ids=["write", "twice", "chmod", "utime", "unlink", "rename", "save", "symlink", "mkdir", "rmdir", "replace"],
)  # fmt: skip
def test_what_the_guest_did_is_no_event(home: Watching, work: Callable[[Watching], None]) -> None:
    there(home, "file")
    work(home)
    assert home.settled(b"/work/code") == []


def test_a_folder_that_the_guest_has_moved_is_looked_at_anew(home: Watching) -> None:
    """Of what is in it something may be on its way by the old name."""
    assert home.share.folder(b"/work/code/src")
    at = home.root / "work/code"
    (at / "src/file").write_text("by the host")
    (at / "src").rename(at / "lib")
    home.made(b"/work/code/src", b"/work/code/lib")
    assert home.settled(b"/work/code")[-1] == Event(LOST, True, b"/work/code/lib")


@pytest.mark.parametrize("before", [True, False])
def test_a_change_of_the_host_beside_one_of_the_guest(home: Watching, before: bool) -> None:
    """The guest's own write is known to it; the host's is told when what is there now is not the guest's."""
    path = there(home, "file")
    path.write_text("guest")
    home.made(b"/work/code/file")
    if not before:
        home.settled(b"/work/code")
    path.write_text("the host's")
    home.told.wait(lambda events: Event(MODIFIED, False, b"/work/code/file") in events)


def test_what_the_guest_did_excuses_nothing_later(home: Watching) -> None:
    """A name that the guest has deleted comes and goes again: who has looked meanwhile must hear that it is gone."""
    path = there(home, "file")
    with home.at_once():
        path.unlink()
        home.made(b"/work/code/file")
    assert home.settled(b"/work/code") == []
    with home.at_once():
        path.write_text("")
        path.unlink()
    assert home.settled(b"/work/code") == [Event(DELETED, False, b"/work/code/file")]


def test_a_guest_that_writes_many_times_is_no_event(home: Watching) -> None:
    """Each write is told after it: what is read in between is not taken for the host's."""
    path = there(home, "log")
    with path.open("ab", buffering=0) as stream:
        for _ in range(100):
            stream.write(b"line\n")
            home.made(b"/work/code/log")
    assert home.settled(b"/work/code") == []
