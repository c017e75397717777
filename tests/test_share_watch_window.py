"""What is heard within a short while, by a clock of its own: what waits, what is told, and what is the guest's."""

from __future__ import annotations

import stat

import pytest

from launcher.keeper.shares.watch_items import ATTRIB, CLOSED, CREATED, DELETED, HALF, LOST, MODIFIED
from launcher.keeper.shares.watch_window import LONGEST, LONGEST_USED, YOUNG, Window
from launcher.sftp import events
from launcher.sftp.events import Event
from launcher.sftp.stat import Stat


class Disk:
    """How names are now."""

    def __init__(self) -> None:
        self.names: dict[bytes, Stat] = {}
        self.window = Window(self.names.get)

    def write(self, path: bytes, ctime: int, *, ino: int = 1, size: int = 0, is_dir: bool = False) -> Stat:
        mode = stat.S_IFDIR if is_dir else stat.S_IFREG
        self.names[path] = made = Stat(mode, size, 0, 0, 1, ino, 1, 0, 0, ctime, ctime)
        return made

    def settle(self, now: float) -> list[Event]:
        return self.window.settle(now, now)


def test_what_is_young_waits_and_what_follows_waits_with_it() -> None:
    disk = Disk()
    disk.window.note(b"/old", CREATED, 1.0)
    disk.window.note(b"/young", CREATED, 2.0)
    disk.window.note(b"/old", MODIFIED, 2.0)  # written still: it is as young as that
    disk.window.note(b"/last", CREATED, 1.0)
    assert disk.settle(2.0) == [Event(events.CREATED, False, b"/old")]
    assert disk.settle(2.0 + 2 * YOUNG) == [Event(events.CREATED, False, b"/young"), Event(events.CREATED, False, b"/last")]
    assert len(disk.window) == 0


def test_nothing_waits_for_long() -> None:
    disk = Disk()
    disk.window.note(b"/file", MODIFIED, 1.0)
    for step in range(1, 20):
        now = 1.0 + step * LONGEST / 10
        disk.window.note(b"/file", MODIFIED, now)
        if disk.settle(now):
            assert now >= 1.0 + LONGEST
            return
    raise AssertionError("it waits still")


def test_what_is_made_a_little_later_is_the_guests() -> None:
    disk = Disk()
    made = disk.write(b"/file", 5)
    disk.window.note(b"/file", CREATED, 1.0)
    assert disk.settle(1.0) == []
    disk.window.made(b"/file", made, 1.01)
    assert disk.settle(2.0) == []
    assert len(disk.window) == 0


def test_who_is_late_to_hear_still_knows_what_the_guest_made() -> None:
    """On a busy computer a mass of changes may be read seconds after them."""
    disk = Disk()
    for number, name in enumerate((b"/one", b"/two", b"/three"), 1):
        disk.window.made(name, disk.write(name, 5, ino=number), 1.0)
    disk.window.note(b"/one", CREATED, 6.0)
    assert disk.window.settle(6.1, 0.0) == []
    disk.window.note(b"/two", CREATED, 9.0)
    assert disk.window.settle(9.1, 9.1) == []
    # Now all is heard: what was made so long before is no explanation any more.
    disk.window.note(b"/three", CREATED, 12.0)
    assert disk.settle(13.0) == [Event(events.CREATED, False, b"/three")]


def test_a_file_that_the_guest_writes_waits_behind_others_for_a_second() -> None:
    disk = Disk()
    disk.window.note(b"/log", MODIFIED, 1.0)
    disk.window.note(b"/other", DELETED, 1.0)
    disk.window.made(b"/log", disk.write(b"/log", 1, size=1), 1.0)
    disk.write(b"/log", 2, size=2)  # it is told of the first write only
    assert disk.settle(1.05) == [Event(events.DELETED, False, b"/other")]
    now = 1.05
    while not (found := disk.settle(now)):
        disk.window.made(b"/log", disk.write(b"/log", 3, size=3), now)
        disk.write(b"/log", 4, size=4)
        disk.window.note(b"/log", MODIFIED, now)
        now += 0.02
    assert found == [Event(events.MODIFIED, False, b"/log")]
    assert now >= 1.0 + LONGEST_USED


def replace(disk: Disk, now: float, *, told: bool = True) -> None:
    """The guest makes /new and renames it to /file; `told`: that `made` has come of it all, else only of what was before the
    rename."""
    disk.window.note(b"/new", CREATED, now)
    disk.window.made(b"/new", disk.write(b"/new", int(now * 1000), ino=int(now * 1000)), now)
    disk.window.note(b"/new", DELETED | HALF, now, cookie=1)
    disk.window.note(b"/file", CREATED | HALF, now, cookie=1)
    disk.names[b"/file"] = disk.names.pop(b"/new")
    if told:
        disk.window.made(b"/new", None, now)
        disk.window.made(b"/file", disk.names[b"/file"], now)


def test_a_file_that_the_guest_replaces_again_and_again_is_not_told_back_to_it() -> None:
    disk = Disk()
    now = 1.0
    while now < 1.5:
        replace(disk, now)
        disk.write(b"/new", 1, ino=9)  # the next one, of which nothing has come
        assert disk.settle(now + 0.09) == []
        now += 0.09
    replace(disk, now, told=False)
    assert disk.settle(now + 0.05) == []
    disk.window.made(b"/new", None, now + 0.06)
    disk.window.made(b"/file", disk.names[b"/file"], now + 0.06)
    assert disk.settle(now + 0.07) == []
    assert len(disk.window) == 0


def test_what_the_host_does_to_a_file_that_the_guest_replaces_is_told_in_order() -> None:
    disk = Disk()
    replace(disk, 1.0)
    disk.window.note(b"/file", DELETED, 1.05)
    disk.names.clear()
    disk.window.note(b"/file", CREATED, 1.06)
    disk.write(b"/file", 7, ino=8)
    disk.window.note(b"/other", DELETED, 1.0)
    assert disk.settle(1.09) == [Event(events.DELETED, False, b"/other")]
    assert disk.settle(1.2) == [
        Event(events.CREATED, False, b"/file"),
        Event(events.DELETED, False, b"/file"),
        Event(events.CREATED, False, b"/file"),
    ]


def test_two_writes_that_are_told_the_other_way_round() -> None:
    disk = Disk()
    first = disk.write(b"/file", 1, size=1)
    second = disk.write(b"/file", 2, size=2)
    disk.window.note(b"/file", MODIFIED, 1.0)
    disk.window.made(b"/file", second, 1.0)
    disk.window.made(b"/file", first, 1.0)
    assert disk.settle(2.0) == []


@pytest.mark.parametrize("stale", [True, False])
def test_what_was_made_long_ago_explains_nothing(stale: bool) -> None:
    disk = Disk()
    disk.window.made(b"/file", disk.write(b"/file", 1), 1.0)
    now = 10.0 if stale else 1.1
    disk.window.note(b"/file", ATTRIB, now)
    assert disk.settle(now + 0.1) == ([Event(events.ATTRIBUTES, False, b"/file")] if stale else [])


def test_a_name_that_was_away_once_more_than_the_guest_took_it_is_told() -> None:
    disk = Disk()
    disk.window.note(b"/file", DELETED, 1.0)  # the guest's
    disk.window.made(b"/file", None, 1.0)
    disk.window.note(b"/file", CREATED, 1.0)
    disk.window.note(b"/file", DELETED, 1.0)
    assert disk.settle(2.0) == [Event(events.DELETED, False, b"/file")]


def test_of_a_folder_that_the_guest_has_made_its_content_is_no_matter_but_its_mode_is() -> None:
    disk = Disk()
    disk.window.note(b"/new", CREATED, 1.0, is_dir=True)
    disk.window.made(b"/new", disk.write(b"/new", 1, is_dir=True), 1.0)
    disk.write(b"/new", 2, is_dir=True)
    assert disk.settle(2.0) == []
    disk.window.note(b"/new", ATTRIB, 3.0, is_dir=True)
    disk.window.made(b"/new", disk.write(b"/new", 3, is_dir=True), 3.0)
    assert disk.settle(4.0) == []
    disk.window.note(b"/new", ATTRIB, 5.0, is_dir=True)
    disk.window.made(b"/new", disk.write(b"/new", 4, is_dir=True), 5.0)
    disk.write(b"/new", 5, is_dir=True)
    assert disk.settle(6.0) == [Event(events.ATTRIBUTES, True, b"/new")]


def test_a_rename_of_which_only_one_half_is_the_guests() -> None:
    disk = Disk()
    disk.window.note(b"/a", DELETED | HALF, 1.0, cookie=1)
    disk.window.note(b"/b", CREATED | HALF, 1.0, cookie=1)
    disk.window.made(b"/a", None, 1.0)
    disk.write(b"/b", 1)
    assert disk.settle(2.0) == [Event(events.CREATED, False, b"/b")]
    disk.window.note(b"/b", DELETED | HALF, 3.0, cookie=2)
    disk.window.note(b"/c", CREATED | HALF, 3.0, cookie=2)
    del disk.names[b"/b"]
    disk.window.made(b"/c", disk.write(b"/c", 2), 3.0)
    assert disk.settle(4.0) == [Event(events.DELETED, False, b"/b")]


def test_a_folder_that_the_guest_moved_to_where_nobody_looks() -> None:
    disk = Disk()
    disk.window.note(b"/a", DELETED | HALF, 1.0, is_dir=True, cookie=1)
    disk.window.made(b"/a", None, 1.0)
    assert disk.settle(2.0) == [Event(events.LOST, True, b"/")]


def test_between_the_halves_of_a_rename_something_else_comes() -> None:
    disk = Disk()
    disk.window.note(b"/a", DELETED | HALF, 1.0, cookie=1)
    disk.window.note(b"/x", CREATED, 1.0)
    disk.window.note(b"/b", CREATED | HALF, 1.0, cookie=1)
    assert disk.settle(2.0) == [Event(events.CREATED, False, b"/x"), Event(events.RENAMED, False, b"/a", b"/b")]


def test_a_half_whose_other_comes_later_waits_for_it() -> None:
    disk = Disk()
    disk.window.note(b"/a", DELETED | HALF, 1.0, cookie=1)
    assert disk.settle(1.01) == []
    disk.window.note(b"/b", CREATED | HALF, 1.02, cookie=1)
    assert disk.settle(2.0) == [Event(events.RENAMED, False, b"/a", b"/b")]


def test_when_everything_is_lost_nothing_else_is_told() -> None:
    disk = Disk()
    disk.window.note(b"/a", CREATED, 1.0)
    disk.window.everything([b"/x", b"/y"], 1.0)
    assert disk.settle(2.0) == [Event(events.LOST, True, b"/x"), Event(events.LOST, True, b"/y")]
    disk.window.note(b"/a", LOST, 3.0)
    assert disk.settle(4.0) == [Event(events.LOST, True, b"/a")]


def test_a_close_alone_counts_when_the_file_is_another_than_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    monkeypatch.setattr("launcher.keeper.shares.watch_window.time.time_ns", lambda: 100 * 10**9)
    disk.write(b"/file", 90 * 10**9)
    expected = [Event(events.MODIFIED, False, b"/file")]
    for now, told in ((1.0, expected), (2.0, [])):
        disk.window.note(b"/file", CLOSED, now)
        assert disk.settle(now + 0.5) == told
    disk.write(b"/file", 95 * 10**9)
    disk.window.note(b"/file", CLOSED, 3.0)
    assert disk.settle(3.5) == expected
    disk.write(b"/old", 1)
    disk.window.note(b"/old", CLOSED, 4.0)
    assert disk.settle(4.5) == []
