"""No change is missed: who keeps what it was shown until it hears of an event has the truth in the end.

The follower keeps what it has seen of folders that count as watched, as the guest's kernel does, drops it as events say, and
makes changes of its own meanwhile.
"""

from __future__ import annotations

import os
import random
import stat
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest

from launcher.keeper.shares import watch_places, watch_storm
from launcher.keeper.shares.watch_tree import child, within
from launcher.sftp.events import CREATED, DELETED, LOST, Event
from tests.watching import Watching, watching

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify")

CHANGES = 10_000
TURNS = 20
NAMES = "abc"
DEPTH = 3


def some_path(chance: random.Random) -> str:
    return "/".join(chance.choice(NAMES) for _ in range(chance.randint(1, DEPTH)))


def change(root: Path, chance: random.Random) -> tuple[str, ...]:
    """One change; the names that it was about, or none when it could not be."""
    path, other = some_path(chance), some_path(chance)
    at, to = str(root / path), str(root / other)
    try:
        match chance.randrange(12):
            case 0 | 1:
                os.mkdir(at)
            case 2 | 3:
                with open(at, "ab", buffering=0) as stream:
                    stream.write(b"x" * chance.randint(1, 20))
            case 4:
                with open(at, "r+b", buffering=0) as stream:
                    stream.write(b"%d" % chance.randint(0, 9))
            case 5:
                os.unlink(at)
            case 6 | 9 | 10 | 11:
                if os.path.isdir(at) and other.count("/") > path.count("/"):
                    return ()  # deeper and deeper
                os.rename(at, to)
                return path, other
            case 7:
                os.chmod(at, chance.choice((0o700, 0o755)))
            case _:
                os.rmdir(at)
    except OSError:
        return ()
    return (path,)


Shown = tuple[int, ...] | None  # of a name: None when it is not there, else which file, and of a file how it is


class Follower:
    """Keeps what was shown of the names in a folder with the folder itself, wherever that moves: as a kernel does, and as is
    hardest for who has to tell it."""

    def __init__(self, home: Watching) -> None:
        self.home = home
        self.root = os.stat(home.root).st_ino
        self.kept: dict[tuple[int, bytes], Shown] = {}
        self.where = {self.root: b"/"}  # folders, where they were found last
        self.found = {self.root: {b"/"}}  # and wherever they have been: what is lost by one name is lost by all
        self.waiting: deque[Event] = deque()
        self.answered = 0  # from what was kept

    def take(self, _share: str, events: Sequence[Event]) -> None:
        self.waiting.extend(events)

    def look(self, path: bytes) -> None:
        """As a lookup of each name on the way."""
        self.drop_told()
        folder, inode = b"/", self.root
        for name in path.strip(b"/").split(b"/"):
            at = child(folder, name)
            if (inode, name) in self.kept:
                shown = self.kept[inode, name]
                self.answered += 1
            else:
                watched = self.home.share.folder(folder)
                shown = self.shown(at)
                if watched and (shown is None or shown[1] == 1):
                    self.kept[inode, name] = shown
            if shown is None or not stat.S_ISDIR(shown[2]):
                return
            folder, inode = at, shown[0]
            self.where[inode] = folder
            self.found.setdefault(inode, set()).add(folder)

    def shown(self, path: bytes) -> Shown:
        found = self.home.look(path)
        if found is None:
            return None
        if stat.S_ISDIR(found.mode):
            return found.ino, 1, stat.S_IFDIR
        return found.ino, found.nlink, found.mode, found.size, found.mtime_ns, found.ctime_ns

    def do(self, chance: random.Random) -> None:
        """A change of the guest's own. It knows what it did."""
        paths = [b"/" + path.encode() for path in change(self.home.root, chance)]
        for number, path in enumerate(paths):
            gone = len(paths) == 2 and number == 0
            self.home.share.made(path, None if gone else self.home.look(path))
            self.drop_name(path)
            if not gone and len(paths) == 1:
                self.drop_content(path)

    def drop_told(self) -> None:
        while self.waiting:
            event = self.waiting.popleft()
            self.drop_name(event.path)
            if event.path2:
                self.drop_name(event.path2)
            if event.kind in (CREATED, DELETED):  # another folder, or none
                self.drop_content(event.path)
            if event.kind == LOST:
                lost = {event.path}
                self.drop_folders({inode for inode, paths in self.found.items() if any(within(path, lost) for path in paths)})

    def drop_name(self, path: bytes) -> None:
        folder, _, name = path.rpartition(b"/")
        for inode, where in self.where.items():
            if where == (folder or b"/"):
                self.kept.pop((inode, name), None)

    def drop_content(self, path: bytes) -> None:
        self.drop_folders({inode for inode, where in self.where.items() if where == path})

    def drop_folders(self, inodes: set[int]) -> None:
        for key in [key for key in self.kept if key[0] in inodes]:
            del self.kept[key]

    def wrong(self) -> dict[bytes, tuple[Shown, Shown]]:
        """What a lookup would answer from what is kept, and what is true."""
        found: dict[bytes, tuple[Shown, Shown]] = {}
        folders = [(b"/", self.root)]
        for folder, inode in folders:
            for name in map(str.encode, NAMES):
                if (inode, name) in self.kept:
                    shown, at = self.kept[inode, name], child(folder, name)
                    if shown != self.shown(at):
                        found[at] = shown, self.shown(at)
                    elif shown is not None and stat.S_ISDIR(shown[2]):
                        folders.append((at, shown[0]))
        return found


@pytest.mark.parametrize("guest_too", [False, True], ids=["host", "host and guest"])
@pytest.mark.parametrize("most", [65_536, 9], ids=["all", "few"])
def test_no_change_is_missed(tmp_path: Path, guest_too: bool, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_places, "MOST", most)
    monkeypatch.setattr(watch_places, "SETTLED", 0.0)
    for name in ("IN_FOLDER", "AT_ONCE"):  # else all of them would be one that says to look at everything anew
        monkeypatch.setattr(watch_storm, name, 1_000_000)
    root = tmp_path / "root"
    root.mkdir()
    with watching(root) as home:
        follower = Follower(home)
        home.told.others.append(follower.take)
        home.watcher.bound({"home": [b"/"]})
        assert home.share.folder(b"/")
        for turn in range(TURNS):
            race(home, follower, turn, guest_too=guest_too)
            assert follower.wrong() == {}, turn
        assert follower.answered > 0


def test_a_folder_that_is_found_at_its_new_place_before_it_is_heard_of(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a" / "a").mkdir(parents=True)
    (root / "b").mkdir()
    (root / "a" / "a" / "c").write_text("1")
    with watching(root) as home:
        follower = Follower(home)
        home.told.others.append(follower.take)
        home.watcher.bound({"home": [b"/"]})
        follower.look(b"/a/a/c")
        os.rename(root / "a" / "a", root / "b" / "a")
        follower.look(b"/b/a/c")  # its folder is watched from here on, and it is known by the old place's name
        home.settled(b"/")
        follower.drop_told()
        (root / "b" / "a" / "c").write_text("22")  # in a folder whose watch has ended with the old place
        home.settled(b"/")
        follower.drop_told()
        assert follower.wrong() == {}


def race(home: Watching, follower: Follower, turn: int, *, guest_too: bool) -> None:
    """Some of the changes, and then quiet."""

    def write() -> None:
        chance = random.Random(turn)
        done = 0
        while done < CHANGES / TURNS:
            done += bool(change(home.root, chance))

    writer = threading.Thread(target=write)
    writer.start()
    chance = random.Random(-turn)
    while writer.is_alive():
        follower.look(b"/" + some_path(chance).encode())
        if guest_too and chance.random() < 0.05:
            follower.do(chance)
    writer.join()
    while len(home.share.window):  # what the guest uses is told later than others
        home.settled(b"/")
    home.settled(b"/")  # and what was taken from there last
    follower.drop_told()
