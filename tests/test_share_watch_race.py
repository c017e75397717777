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
from typing import Any

import pytest

from launcher.keeper.shares import watch_places
from launcher.sftp.events import Event
from tests.watching import Watching, watching

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify")

CHANGES = 10_000
NAMES = "abcd"
DEPTH = 3


def some_path(chance: random.Random) -> str:
    return "/".join(chance.choice(NAMES) for _ in range(chance.randint(1, DEPTH)))


def change(root: Path, chance: random.Random) -> tuple[str, ...]:
    """One change; the names that it was about, or none when it could not be."""
    path, other = some_path(chance), some_path(chance)
    at, to = str(root / path), str(root / other)
    try:
        match chance.randrange(9):
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
            case 6:
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


class Follower:
    """What was shown of a name: None when it is not there, else which file, and of a file how it is."""

    def __init__(self, home: Watching) -> None:
        self.home = home
        self.kept: dict[bytes, tuple[int, ...] | None] = {}
        self.waiting: deque[Event] = deque()
        self.looks = 0
        self.answered = 0  # from what was kept

    def take(self, _share: str, events: Sequence[Event]) -> None:
        self.waiting.extend(events)

    def look(self, path: bytes) -> None:
        """As a lookup of each name on the way, by name only where that is kept."""
        self.drop_told()
        at = b""
        for name in path.strip(b"/").split(b"/"):
            folder, at = at or b"/", at + b"/" + name
            self.looks += 1
            if at not in self.kept:
                watched = self.home.share.folder(folder)
                shown = self.shown(at)
                if watched and (shown is None or shown[1] == 1 or stat.S_ISDIR(shown[2])):
                    self.kept[at] = shown
            else:
                shown = self.kept[at]
                self.answered += 1
            if shown is None or not stat.S_ISDIR(shown[2]):
                return

    def shown(self, path: bytes) -> tuple[int, ...] | None:
        found = self.home.look(path)
        if found is None:
            return None
        if stat.S_ISDIR(found.mode):
            return found.ino, found.nlink and 1, stat.S_IFDIR
        return found.ino, found.nlink, found.mode, found.size, found.mtime_ns, found.ctime_ns

    def do(self, chance: random.Random) -> None:
        """A change of the guest's own. It knows what it did."""
        for path in change(self.home.root, chance):
            name = b"/" + path.encode()
            self.home.made(name)
            self.drop(name)

    def drop_told(self) -> None:
        while self.waiting:
            event = self.waiting.popleft()
            self.drop(event.path)
            if event.path2:
                self.drop(event.path2)

    def drop(self, path: bytes) -> None:
        """It, and what was found by way of it."""
        below = path.rstrip(b"/") + b"/"
        for kept in [kept for kept in self.kept if kept == path or kept.startswith(below)]:
            del self.kept[kept]


def wrong(follower: Follower) -> dict[bytes, Any]:
    found = {path: (shown, follower.shown(path)) for path, shown in follower.kept.items()}
    return {path: both for path, both in found.items() if both[0] != both[1]}


@pytest.mark.parametrize("guest_too", [False, True], ids=["host", "host and guest"])
@pytest.mark.parametrize("most", [65_536, 12], ids=["all", "few"])
def test_no_change_is_missed(tmp_path: Path, guest_too: bool, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_places, "MOST", most)
    monkeypatch.setattr(watch_places, "SETTLED", 0.0)
    root = tmp_path / "root"
    root.mkdir()
    with watching(root) as home:
        follower = Follower(home)
        home.told.others.append(follower.take)
        home.watcher.bound({"home": [b"/"]})
        assert home.share.folder(b"/")
        over = threading.Event()

        def write() -> None:
            chance = random.Random(1)
            done = 0
            while done < CHANGES:
                done += bool(change(root, chance))
            over.set()

        writer = threading.Thread(target=write)
        writer.start()
        chance = random.Random(2)
        while not over.is_set():
            follower.look(b"/" + some_path(chance).encode())
            if guest_too and chance.random() < 0.05:
                follower.do(chance)
        writer.join()
        home.settled(b"/")
        follower.drop_told()
        for _ in range(1_000):  # what is kept now is all that there is
            follower.look(b"/" + some_path(chance).encode())
        assert wrong(follower) == {}
        assert follower.kept and follower.answered > 0
