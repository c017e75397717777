"""What a session asks and tells who watches, and how events come to the guest."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.sftp import session
from launcher.sftp.events import CREATED, EVERYTHING, MODIFIED, MOST_WAITING, RENAMED, Event, Waiting
from launcher.sftp.session import Session
from launcher.sftp.stat import Stat
from tests import sftpclient as sftp
from tests.sftpclient import (
    APPEND,
    CREAT,
    HANG_SECONDS,
    HELLO,
    TRUNC,
    Failed,
    Feed,
    Fields,
    RawClient,
    W,
    attrs,
    packet,
    s,
    served,
    u32,
    u64,
)
from tests.sftptree import PlainTree


class Recorded(PlainTree):
    """Writes down the looks at names, between what the watcher is asked and told."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.said: list[tuple[str, bytes]] = []
        self.stats: dict[bytes, Stat | None] = {}
        self.unwatched: set[bytes] = set()

    def folder(self, path: bytes) -> bool:
        self.said.append(("asked", path))
        return path not in self.unwatched

    def made(self, path: bytes, stat: Stat | None) -> None:
        self.said.append(("made", path))
        self.stats[path] = stat

    def lstat(self, path: bytes) -> Stat:
        self.said.append(("looked", path))
        return super().lstat(path)

    def listdir(self, path: bytes):
        self.said.append(("listed", path))
        yield from super().listdir(path)

    def told(self) -> list[bytes]:
        """Since the last time."""
        found = [path for what, path in self.said if what == "made"]
        self.said.clear()
        return found


@pytest.fixture
def tree(tmp_path: Path) -> Recorded:
    (tmp_path / "a").write_bytes(b"0123456789")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").touch()
    return Recorded(tmp_path)


@pytest.fixture
def both(tree: Recorded) -> Iterator[tuple[RawClient, Session]]:
    with served(tree, tree) as (stream, serving):
        client = RawClient(stream)
        client.init()
        yield client, serving


@pytest.fixture
def client(both: tuple[RawClient, Session]) -> RawClient:
    return both[0]


def test_the_folder_is_asked_for_before_it_is_looked_at(client: RawClient, tree: Recorded) -> None:
    assert client.lstat(b"/a").watched == 1
    assert tree.said == [("asked", b"/"), ("looked", b"/a")]
    tree.said.clear()
    assert client.lstat(b"/d/x").watched == 1 and tree.said[0] == ("asked", b"/d")
    tree.said.clear()
    assert client.list(b"/d")[b"x"].watched == 1
    assert tree.said == [("asked", b"/"), ("asked", b"/d"), ("listed", b"/d")]
    assert client.readdir(b"/d")[b"x"].watched == 1
    assert client.open_whole(b"/d/x").shown.watched == 1
    assert client.lstat(b"/d/x", sftp.STAT).watched == 1
    tree.unwatched.add(b"/d")
    assert client.lstat(b"/d/x").watched == 0 and client.list(b"/d")[b"x"].watched == 0


@pytest.mark.parametrize("ask", ["lstat", "open", "open_whole", "list", "readlink"])
def test_that_a_name_is_not_there_is_watched_too(client: RawClient, tree: Recorded, ask: str) -> None:
    def call(path: bytes) -> int:
        with pytest.raises(Failed) as caught:
            client.name(client.request(sftp.READLINK, s(path))) if ask == "readlink" else getattr(client, ask)(path)
        assert caught.value.errno == 2
        return caught.value.watched

    assert call(b"/none") == 1
    tree.unwatched.add(b"/d")
    assert call(b"/d/none") == 0
    with pytest.raises(Failed) as caught:
        client.lstat(b"/a/none")
    assert (caught.value.errno, caught.value.watched) == (20, 0)


def test_a_folder_is_watched_when_what_is_in_it_is(client: RawClient, tree: Recorded) -> None:
    """Its times change with its names, which who watches its parent does not see."""
    assert client.lstat(b"/d").watched == 1
    # Looked at again when it is watched itself: it may have changed before.
    assert tree.said == [("asked", b"/"), ("looked", b"/d"), ("asked", b"/d"), ("looked", b"/d")]
    tree.unwatched.add(b"/d")
    assert client.lstat(b"/d").watched == 0
    assert client.list(b"/")[b"d"].watched == 0  # not asked for each of many folders
    assert client.lstat(b"/").watched == 0


def test_what_may_change_unseen_is_not_watched(client: RawClient, tmp_path: Path) -> None:
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "link").symlink_to("d/x")
    assert client.lstat(b"/a").watched == 0 and client.list(b"/")[b"b"].watched == 0
    assert client.lstat(b"/link").watched == 1 and client.lstat(b"/link", sftp.STAT).watched == 0
    assert client.fstat(client.open(b"/a")).watched == 0


def test_who_watches_is_told_of_each_change(client: RawClient, tree: Recorded, tmp_path: Path) -> None:
    tree.told()
    client.ok(client.request(sftp.MKDIR, s(b"/new") + u32(0)))
    assert tree.told() == [b"/new"] and tree.stats[b"/new"] == tree.lstat(b"/new")
    client.ok(client.request(sftp.RMDIR, s(b"/new")))
    assert tree.told() == [b"/new"] and tree.stats[b"/new"] is None
    client.ok(client.request(sftp.SYMLINK, s(b"a") + s(b"/link")))
    assert tree.told() == [b"/link"]
    client.ok(client.extended(b"hardlink@openssh.com", s(b"/a") + s(b"/b")))
    assert tree.told() == [b"/a", b"/b"] and tree.stats[b"/a"] == tree.lstat(b"/a")
    client.ok(client.request(sftp.RENAME, s(b"/b") + s(b"/c")))
    assert tree.told() == [b"/b", b"/c"] and tree.stats[b"/b"] is None and tree.stats[b"/c"] == tree.lstat(b"/c")
    client.ok(client.extended(b"posix-rename@openssh.com", s(b"/link") + s(b"/c")))
    assert tree.told() == [b"/link", b"/c"]
    client.ok(client.request(sftp.REMOVE, s(b"/c")))
    assert tree.told() == [b"/c"]
    client.ok(client.request(sftp.SETSTAT, s(b"/a") + attrs(mode=0o600)))
    client.ok(client.extended(b"lsetstat@openssh.com", s(b"/a") + attrs(times=(1, 2))))
    assert tree.told() == [b"/a", b"/a"] and tree.stats[b"/a"] == tree.lstat(b"/a")
    client.request(sftp.MKDIR, s(b"/d") + u32(0))
    client.request(sftp.REMOVE, s(b"/none"))
    assert tree.told() == []  # nothing has changed


def test_who_watches_is_told_of_files(client: RawClient, tree: Recorded) -> None:
    tree.told()
    handle = client.open(b"/f", W | CREAT)
    assert tree.told() == [b"/f"] and tree.stats[b"/f"] == tree.lstat(b"/f")
    tree.told()
    client.write(handle, 0, b"written")
    # Before the answer: so it is true now.
    assert tree.told() == [b"/f"] and tree.stats[b"/f"] == tree.lstat(b"/f")
    tree.told()
    client.ok(client.request(sftp.FSETSTAT, s(handle) + attrs(size=3)))
    assert tree.told() == [b"/f"] and tree.stats[b"/f"] == tree.lstat(b"/f")
    client.close(handle)
    assert client.status(client.extended(b"fallocate@wherry", s(client.open(b"/f", W)) + u32(0) + u64(0) + u64(9))).errno in (
        0,
        95,
    )
    tree.told()
    client.open(b"/a")
    client.open_whole(b"/a")
    assert tree.told() == []
    client.close(client.open(b"/a", W | TRUNC))
    client.write(client.open(b"/a", APPEND | W), 0, b"more")
    assert tree.told() == [b"/a", b"/a"]


def test_writes_that_are_answered_together_are_told_once(tree: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(session, "_MOST_SECONDS", 3600)
    write = packet(sftp.WRITE, s(u64(1)) + u64(0) + s(b"x"))
    opening = packet(sftp.OPEN, s(b"/a") + u32(W) + u32(0))
    told: list[list[bytes]] = []
    feed = Feed([HELLO, opening, write * 10, write * 10 + packet(sftp.CLOSE, s(u64(1)))], lambda _: told.append(tree.told()))
    Session(feed, tree, watched=tree).serve()
    assert told == [[], [], [b"/a"], [b"/a"]]


def test_a_file_is_told_of_by_the_name_that_it_has(client: RawClient, tree: Recorded) -> None:
    handle, below = client.open(b"/a", W), client.open(b"/d/x", W)
    client.ok(client.request(sftp.RENAME, s(b"/a") + s(b"/b")))
    client.ok(client.request(sftp.RENAME, s(b"/d") + s(b"/e")))
    tree.told()
    client.write(handle, 0, b"x")
    client.write(below, 0, b"x")
    assert tree.told() == [b"/b", b"/e/x"]
    client.ok(client.extended(b"posix-rename@openssh.com", s(b"/e/x") + s(b"/b")))
    tree.told()
    client.write(handle, 0, b"y")  # whose name is another file's
    client.write(below, 0, b"y")
    client.ok(client.request(sftp.REMOVE, s(b"/b")))
    client.write(below, 0, b"z")
    assert tree.told() == [b"/b", b"/b"]


def test_events_come_when_they_are_asked_for(both: tuple[RawClient, Session]) -> None:
    client, serving = both
    first = [Event(CREATED, False, b"/new"), Event(RENAMED, True, b"/d", b"/e")]
    serving.push(first)
    assert client.events(client.extended(b"events@wherry")) == [(1, 0, b"/new", b""), (3, 1, b"/d", b"/e")]
    asked = client.send(sftp.EXTENDED, s(b"events@wherry"))
    client.lstat(b"/a")
    assert client.status(client.extended(b"events@wherry")).errno == 16  # one is under way
    serving.push([Event(MODIFIED, False, b"/a")])
    assert client.events(client.wait(asked)) == [(4, 0, b"/a", b"")]


def test_events_do_not_overtake_answers_that_are_older(tree: Recorded, tmp_path: Path) -> None:
    """The guest keeps what it is shown until it hears of a change: what it is shown later must not be older."""
    looked, go_on = threading.Event(), threading.Event()

    class Late(Recorded):
        def lstat(self, path: bytes) -> Stat:
            stat = super().lstat(path)
            if path == b"/a":
                looked.set()
                assert go_on.wait(HANG_SECONDS)
            return stat

    late = Late(tmp_path)
    with served(late, late) as (stream, serving):
        client = RawClient(stream)
        client.init()
        events = client.send(sftp.EXTENDED, s(b"events@wherry"))
        look = client.send(sftp.LSTAT, s(b"/a"))
        try:
            assert looked.wait(HANG_SECONDS)
            serving.push([Event(MODIFIED, False, b"/a")])
            # Others are served: another thread leads, and has passed the place where events are sent.
            for _ in range(3):
                ident = client.send(sftp.LSTAT, s(b"/d"))
                assert client.any() == ident
        finally:
            go_on.set()
        assert client.any() == look and client.any() == events


def test_events_are_brought_while_requests_never_end(both: tuple[RawClient, Session]) -> None:
    client, serving = both
    asked = client.send(sftp.EXTENDED, s(b"events@wherry"))
    serving.push([Event(MODIFIED, False, b"/a")])
    while client.any() != asked:
        client.send(sftp.LSTAT, s(b"/a"))


def test_too_many_events_become_one() -> None:
    waiting = Waiting()
    waiting.add(Event(MODIFIED, False, b"/%d" % number) for number in range(MOST_WAITING))
    assert len(waiting) == MOST_WAITING
    waiting.add([Event(MODIFIED, False, b"/more")])
    waiting.add([Event(MODIFIED, False, b"/and more")])
    assert waiting.take() == u32(1) + b"\6\1" + s(b"/") + s(b"") and not waiting
    assert EVERYTHING.path == b"/"
    waiting.add([Event(MODIFIED, False, b"/a"), Event(MODIFIED, False, b"/a"), Event(CREATED, False, b"/b")])
    assert len(waiting) == 2  # the same twice is once


def test_events_fit_into_packets() -> None:
    waiting = Waiting()
    waiting.add(Event(RENAMED, False, b"/%04d" % number + b"x" * 4090, b"/" + b"y" * 4095) for number in range(900))
    seen = 0
    while waiting:
        body = waiting.take()
        assert len(body) < 262_144
        fields = Fields(body)
        for _ in range(fields.take("I")):
            fields.take("BB"), fields.string(), fields.string()
            seen += 1
    assert seen == 900


def test_pushing_never_waits(tree: Recorded) -> None:
    """Not for a guest that does not ask, nor for one that does not read."""
    sending, release = threading.Event(), threading.Event()

    class Stuck:
        def __init__(self) -> None:
            self.chunks = iter([HELLO, packet(sftp.EXTENDED, s(b"events@wherry"))])

        def recv(self, size: int) -> bytes:
            chunk = next(self.chunks, b"")
            if not chunk:
                assert release.wait(HANG_SECONDS)
            return chunk

        def sendall(self, data: bytes) -> None:
            if b"/a" in data:
                sending.set()
                assert release.wait(HANG_SECONDS)

    serving = Session(Stuck(), tree, watched=tree)
    thread = threading.Thread(target=serving.serve)
    thread.start()
    try:
        serving.push([Event(MODIFIED, False, b"/a")])
        assert sending.wait(HANG_SECONDS)
        for _ in range(5000):
            serving.push([Event(MODIFIED, False, b"/b")])
    finally:
        release.set()
        thread.join(HANG_SECONDS)
    assert not thread.is_alive()
