"""What goes on at the same time in a session."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.sftp import crew, requests, session
from launcher.sftp.crew import MOST_RUNNING
from launcher.sftp.session import Session
from launcher.sftp.stat import Stat
from tests import sftpclient as sftp
from tests.sftpclient import CREAT, HANG_SECONDS, HELLO, Failed, Feed, R, RawClient, W, attrs, packet, s, served, u32, u64
from tests.sftptree import PlainTree


class Gate:
    """Where a call waits until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self.open = threading.Event()

    def wait(self) -> None:
        self.reached.release()
        assert self.open.wait(HANG_SECONDS)

    def met(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.reached.acquire(timeout=HANG_SECONDS)


class SlowTree(PlainTree):
    """What is done with names that begin with `slow` takes until the gate is open."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate = Gate()

    def _slow(self, path: bytes) -> None:
        if path.startswith(b"/slow"):
            self.gate.wait()

    def lstat(self, path: bytes) -> Stat:
        self._slow(path)
        return super().lstat(path)

    def mkdir(self, path: bytes, mode: int) -> None:
        self._slow(path)
        super().mkdir(path, mode)


@pytest.fixture
def tree(tmp_path: Path) -> SlowTree:
    (tmp_path / "a").write_bytes(b"0123456789")
    (tmp_path / "slow").touch()
    return SlowTree(tmp_path)


@pytest.fixture
def client(tree: SlowTree) -> Iterator[RawClient]:
    with served(tree) as (stream, _):
        client = RawClient(stream)
        client.init()
        try:
            yield client
        finally:
            tree.gate.open.set()


@pytest.fixture
def slow_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A READ from the offset 7 takes until the gate is open."""
    gate = Gate()
    real = requests.read_at

    def read_at(fd: int, size: int, offset: int) -> bytes:
        if offset == 7:
            gate.wait()
        return real(fd, size, offset)

    monkeypatch.setattr(requests, "read_at", read_at)
    yield gate
    gate.open.set()


def ping(client: RawClient) -> None:
    """Answered before anything else that is asked."""
    ident = client.send(sftp.EXTENDED, s(b"ping@wherry"))
    assert client.any() == ident
    client.ok(client.wait(ident))


def read_slowly(client: RawClient, handle: bytes) -> int:
    return client.send(sftp.READ, s(handle) + u64(7) + u32(100))


def test_a_slow_look_stops_no_other_look(client: RawClient, tree: SlowTree, tmp_path: Path) -> None:
    handle = client.open(b"/a", R | W)
    slow = client.send(sftp.LSTAT, s(b"/slow"))
    tree.gate.met()
    ping(client)
    assert client.lstat(b"/a").size == 10 and client.read(handle, 0, 3) == b"012"
    assert set(client.list(b"/")) == {b"a", b"slow"} and client.open_whole(b"/a").data == b"0123456789"
    change = client.send(sftp.MKDIR, s(b"/d") + u32(0))
    later = client.send(sftp.LSTAT, s(b"/d"))
    write = client.send(sftp.WRITE, s(handle) + u64(0) + s(b"x"))
    ping(client)
    assert not (tmp_path / "d").exists() and (tmp_path / "a").read_bytes()[:1] == b"0"
    tree.gate.open.set()
    assert client.expect(sftp.ATTRS, client.wait(slow))
    client.ok(client.wait(change))
    assert client.expect(sftp.ATTRS, client.wait(later))
    client.ok(client.wait(write))


def test_a_tree_for_one_thread_at_a_time_is_used_by_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    tree = SlowTree(tmp_path)
    tree.parallel = False
    with served(tree) as (stream, _):
        client = RawClient(stream)
        client.init()
        handle = client.open(b"/a")
        slow = client.send(sftp.LSTAT, s(b"/slow"))
        try:
            tree.gate.met()
            waits = [client.send(sftp.LSTAT, s(b"/a")) for _ in range(50)]
            ping(client)
            # What is open needs no path.
            read = client.send(sftp.READ, s(handle) + u64(0) + u32(3))
            assert client.any() == read
            ping(client)
        finally:
            tree.gate.open.set()
        client.wait(slow)
        assert {client.wait(ident)[0] for ident in waits} == {sftp.ATTRS}


def test_a_slow_change_stops_all_but_ping(client: RawClient, tree: SlowTree) -> None:
    handle = client.open(b"/a")
    slow = client.send(sftp.MKDIR, s(b"/slow2") + u32(0))
    tree.gate.met()
    waiting = [client.send(sftp.LSTAT, s(b"/a")), client.send(sftp.READ, s(handle) + u64(0) + u32(1))]
    for _ in range(20):
        ping(client)
    tree.gate.open.set()
    client.ok(client.wait(slow))
    assert [client.wait(ident)[0] for ident in waiting] == [sftp.ATTRS, sftp.DATA]


def test_a_slow_read_stops_its_own_handle_only(client: RawClient, slow_reads: Gate, tmp_path: Path) -> None:
    handle, other = client.open(b"/a"), client.open(b"/a", R | W)
    slow = read_slowly(client, handle)
    slow_reads.met()
    same = client.send(sftp.READ, s(handle) + u64(0) + u32(2))
    closing = client.send(sftp.CLOSE, s(handle))
    ping(client)
    assert client.read(other, 0, 3) == b"012" and client.lstat(b"/a").size == 10
    client.ok(client.request(sftp.MKDIR, s(b"/d") + u32(0)))
    slow_reads.open.set()
    assert client.expect(sftp.DATA, client.wait(slow)).string() == b"789"
    assert client.expect(sftp.DATA, client.wait(same)).string() == b"01"
    client.ok(client.wait(closing))


def test_a_change_overtakes_a_slow_read(client: RawClient, slow_reads: Gate, tmp_path: Path) -> None:
    slow = read_slowly(client, client.open(b"/a"))
    slow_reads.met()
    client.ok(client.request(sftp.MKDIR, s(b"/d") + u32(0)))
    assert (tmp_path / "d").exists()
    slow_reads.open.set()
    assert client.wait(slow)[0] == sftp.DATA


def test_fsync_stops_only_its_own_handle(client: RawClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gate = Gate()
    monkeypatch.setattr(os, "fsync", lambda _: gate.wait())
    handle, other = client.open(b"/a", R | W), client.open(b"/a", R | W)
    try:
        syncing = client.send(sftp.EXTENDED, s(b"fsync@openssh.com") + s(handle))
        gate.met()
        same = client.send(sftp.WRITE, s(handle) + u64(0) + s(b"same"))
        client.write(other, 4, b"other")
        client.ok(client.request(sftp.MKDIR, s(b"/d") + u32(0)))
        ping(client)
        assert (tmp_path / "a").read_bytes() == b"0123other9"
    finally:
        gate.open.set()
    client.ok(client.wait(syncing))
    client.ok(client.wait(same))
    assert (tmp_path / "a").read_bytes() == b"sameother9"


def test_so_much_that_is_slow_that_others_must_wait(client: RawClient, slow_reads: Gate) -> None:
    slow = [read_slowly(client, client.open(b"/a")) for _ in range(MOST_RUNNING - 2)]
    slow_reads.met(MOST_RUNNING - 2)
    assert client.lstat(b"/a").size == 10  # there are threads left
    handles = [client.open(b"/a") for _ in range(20)]
    slow += [read_slowly(client, handle) for handle in handles]
    slow_reads.met(2)
    ping(client)
    waits = client.send(sftp.LSTAT, s(b"/a"))
    ping(client)
    slow_reads.open.set()
    for ident in slow:
        assert client.expect(sftp.DATA, client.wait(ident)).string() == b"789"
    assert client.wait(waits)[0] == sftp.ATTRS
    assert client.lstat(b"/a").size == 10


def test_what_waits_is_bounded(client: RawClient, tree: SlowTree) -> None:
    """Beyond a bound nothing is read; and it all goes on afterwards."""
    slow = client.send(sftp.MKDIR, s(b"/slow2") + u32(0))
    tree.gate.met()
    wanted = [client.packed(sftp.LSTAT, s(b"/a")) for _ in range(3000)]
    sender = threading.Thread(target=client.stream.sendall, args=(b"".join(wanted),))
    sender.start()
    tree.gate.open.set()
    client.ok(client.wait(slow))
    for ident in range(client.ident - 2999, client.ident + 1):
        assert client.wait(ident)[0] == sftp.ATTRS
    sender.join()


class Jittery(PlainTree):
    """Some calls take some milliseconds, so that the leading thread changes all the time."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.random = random.Random(5)

    def place(self, path: bytes) -> bytes:
        if self.random.random() < 0.15:
            time.sleep(0.012)
        return super().place(path)


@pytest.mark.parametrize("seed", range(4))
def test_nobody_can_tell_the_order(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same requests, one after the other and all at once, have the same answers and leave the same files."""
    real = requests.read_at
    monkeypatch.setattr(requests, "read_at", lambda *args: (time.sleep(0.012 * (random.random() < 0.1)), real(*args))[1])

    def requests_of(seed: int) -> Iterator[tuple[int, bytes]]:
        chance = random.Random(seed)
        names = [b"/n%d" % number for number in range(6)]
        handles = [u64(number) for number in range(1, 5)]
        for number in range(4):
            yield sftp.OPEN, s(b"/h%d" % number) + u32(R | W | CREAT) + u32(0)
        for step in range(400):
            name, other, handle = chance.choice(names), chance.choice(names), chance.choice(handles)
            yield chance.choice([
                (sftp.MKDIR, s(name) + u32(0)), (sftp.RMDIR, s(name)), (sftp.REMOVE, s(name)),
                (sftp.RENAME, s(name) + s(other)), (sftp.SYMLINK, s(b"target%d" % step) + s(name)), (sftp.READLINK, s(name)),
                (sftp.WRITE, s(handle) + u64(chance.randrange(50)) + s(b"%d" % step)),
                (sftp.READ, s(handle) + u64(chance.randrange(60)) + u32(20)),
                (sftp.FSETSTAT, s(handle) + attrs(size=chance.randrange(60))),
                (sftp.EXTENDED, s(b"fsync@openssh.com") + s(handle)),
                (sftp.EXTENDED, s(b"posix-rename@openssh.com") + s(name) + s(other)),
            ])  # fmt: skip

    def outcome(tree: PlainTree, *, at_once: int) -> list[object]:
        with served(tree) as (stream, serving):
            client = RawClient(stream)
            client.init()
            wanted = list(requests_of(seed))
            first = client.ident + 1
            for number, one in enumerate(wanted):
                client.send(*one)
                if number >= at_once:
                    client.any()
            answers = [client.wait(first + number) for number in range(len(wanted))]
            assert not at_once or serving._crew.term  # another thread has led
        root = Path(os.fsdecode(tree.root))
        left = {
            path.name: os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
            for path in root.iterdir()
        }
        return [answers, left]

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert outcome(PlainTree(tmp_path / "one"), at_once=0) == outcome(Jittery(tmp_path / "two"), at_once=8)


def test_answers_that_are_ready_go_out_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_MOST_SECONDS", 3600)
    monkeypatch.setattr(crew, "TICK", 0.1)  # another thread that leads would send what is ready
    feed = Feed([HELLO, packet(sftp.LSTAT, s(b"/")) * 30, packet(sftp.LSTAT, s(b"/"))])
    Session(feed, PlainTree(tmp_path)).serve()
    assert len(feed.sent) == 3


def test_answers_are_not_held_back_by_what_is_slow(client: RawClient, tree: SlowTree) -> None:
    quick, slow = client.packed(sftp.LSTAT, s(b"/a")), client.packed(sftp.LSTAT, s(b"/slow"))
    client.stream.sendall(quick + slow)
    assert client.wait(client.ident - 1)[0] == sftp.ATTRS
    tree.gate.open.set()
    assert client.wait(client.ident)[0] == sftp.ATTRS


def test_a_stream_that_ends_while_something_is_slow(tree: SlowTree, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with served(tree) as (stream, _):
        client = RawClient(stream)
        client.init()
        client.open(b"/a")
        client.send(sftp.MKDIR, s(b"/slow2") + u32(0))
        client.send(sftp.MKDIR, s(b"/never") + u32(0))
        tree.gate.met()
        ping(client)
        stream.close()
        tree.gate.open.set()
    assert (tmp_path / "slow2").exists()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_idle_session_has_two_threads_and_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "TICK", 0.1)  # a request that takes longer has a third thread begin
    before = set(threading.enumerate())
    with served(PlainTree(tmp_path)) as (stream, session_):
        client = RawClient(stream)
        client.init()
        client.lstat(b"/")
        deadline = time.monotonic() + HANG_SECONDS
        while not session_._crew.asleep and time.monotonic() < deadline:
            time.sleep(0.01)
        assert session_._crew.asleep and len(set(threading.enumerate()) - before) == 2
        with contextlib.suppress(Failed):
            client.lstat(b"/none")
