"""What a bad other side can do to a session: end it."""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.sftp.crew import MOST_WAITING, MOST_WAITING_BYTES
from launcher.sftp.session import Session
from launcher.sftp.stat import Stat
from tests import sftpclient as sftp
from tests.sftpclient import CREAT, HANG_SECONDS, HELLO, Failed, Feed, R, RawClient, W, attrs, packet, s, served, u32, u64
from tests.sftptree import PlainTree


def test_who_reads_no_answers_is_not_read_either(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", 1 << 20)
    blocked, release = threading.Event(), threading.Event()
    more = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield HELLO
        yield packet(sftp.OPEN, s(b"/a") + u32(R) + u32(0))
        for _ in range(5):
            if blocked.is_set() and not release.is_set():
                more.set()
            yield packet(sftp.READ, s(u64(1)) + u64(0) + u32(1 << 18))

    def on_send(data: bytes) -> None:
        if len(data) > 1000:
            blocked.set()
            assert release.wait(HANG_SECONDS)

    feed = Feed(chunks(), on_send)
    thread = threading.Thread(target=Session(feed, PlainTree(tmp_path)).serve)
    thread.start()
    try:
        assert blocked.wait(HANG_SECONDS)
        assert not more.wait(0.1)
    finally:
        release.set()
        thread.join(HANG_SECONDS)
    assert sum(len(data) > 1000 for data in feed.sent) == 5


@pytest.mark.parametrize("kind", ["many", "large"])
def test_what_waits_for_something_slow_is_bounded(tmp_path: Path, kind: str) -> None:
    """Nothing is read beyond a bound, and all is answered afterwards."""
    release, more, taken = threading.Event(), threading.Event(), 0
    data = s(b"x" * 262_000)

    class Slow(PlainTree):
        def mkdir(self, path: bytes, mode: int) -> None:
            assert release.wait(HANG_SECONDS)

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        yield HELLO + packet(sftp.OPEN, s(b"/a") + u32(W | CREAT) + u32(0)) + packet(sftp.MKDIR, s(b"/d") + u32(0))
        for _ in range(MOST_WAITING + 100 if kind == "many" else MOST_WAITING_BYTES // 262_000 + 20):
            taken += 1
            if not serving._crew.has_room() and not release.is_set() and stopped.is_set():
                more.set()
            yield packet(sftp.LSTAT, s(b"/")) if kind == "many" else packet(sftp.WRITE, s(u64(1)) + u64(0) + data)
        # What waits when the stream ends is not begun.
        yield packet(sftp.MKDIR, s(b"/e") + u32(0), ident=99)
        assert answered.wait(HANG_SECONDS)

    def on_send(data: bytes) -> None:
        if bytes((sftp.STATUS,)) + u32(99) in data:
            answered.set()

    answered = threading.Event()
    stopped, feed = threading.Event(), Feed(chunks(), on_send)
    serving = Session(feed, Slow(tmp_path))
    thread = threading.Thread(target=serving.serve)
    thread.start()
    try:
        deadline = time.monotonic() + HANG_SECONDS
        while serving._crew.has_room() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)  # what had been read before
        stopped.set()
        bound = MOST_WAITING + 2 if kind == "many" else MOST_WAITING_BYTES // 262_000 + 3
        assert not more.wait(0.05) and taken <= bound and serving._crew.order.bytes <= MOST_WAITING_BYTES + 300_000
    finally:
        release.set()
        thread.join(HANG_SECONDS)
    assert not thread.is_alive()
    assert kind == "large" or b"".join(feed.sent).count(b"stat@wherry") == MOST_WAITING + 100


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_packets_that_come_in_pieces(tmp_path: Path, size: int) -> None:
    whole = (
        HELLO + packet(sftp.OPEN, s(b"/a") + u32(W | CREAT) + u32(0)) + packet(sftp.WRITE, s(u64(1)) + u64(0) + s(b"x" * 5000))
    )
    feed = Feed([whole[at : at + size] for at in range(0, len(whole), size)])
    Session(feed, PlainTree(tmp_path)).serve()
    assert (tmp_path / "a").read_bytes() == b"x" * 5000


MALFORMED = {
    "no length": u32(0),
    "1 GB": u32(1 << 30) + b"\7",
    "too long by one": u32(262_144 + 1_025),
    "no id": u32(1) + b"\7",
    "half an id": u32(3) + b"\7\0\0",
    "INIT again": HELLO,
    "no path": packet(sftp.LSTAT, b""),
    "a path of 4 GB": packet(sftp.LSTAT, u32(0xFFFFFFFF) + b"/a"),
    "a path that is longer than the packet by one": packet(sftp.LSTAT, u32(3) + b"/a"),
    "a handle of 257 bytes": packet(sftp.CLOSE, s(b"h" * 257)),
    "no offset": packet(sftp.READ, s(b"h")),
    "no data": packet(sftp.WRITE, s(b"h") + u64(0)),
    "data of 2 GB": packet(sftp.WRITE, s(b"h") + u64(0) + u32(1 << 31)),
    "flags that are none": packet(sftp.SETSTAT, s(b"/a") + u32(0x10)),
    "attributes that are missing": packet(sftp.SETSTAT, s(b"/a") + u32(15)),
    "a million pairs": packet(sftp.SETSTAT, s(b"/a") + u32(0x80000000) + u32(1_000_000) + s(b"a") + s(b"b")),
    "a time that is too short": packet(sftp.SETSTAT, s(b"/a") + u32(0x80000000) + u32(1) + s(b"time@wherry") + s(b"1234")),
    "no name of an extension": packet(sftp.EXTENDED, b"\0"),
    "no second path": packet(sftp.RENAME, s(b"/a")),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_packet_ends_the_session(what: str, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    open_, ask = packet(sftp.OPEN, s(b"/a") + u32(R) + u32(0)), packet(sftp.LSTAT, s(b"/a"))
    before, feed = os.listdir("/proc/self/fd"), Feed([HELLO, open_, MALFORMED[what] + ask, ask])
    Session(feed, PlainTree(tmp_path)).serve()
    assert feed.taken == 3 and b"".join(feed.sent).count(b"stat@wherry") == 0
    assert len(os.listdir("/proc/self/fd")) <= len(before)


def test_nothing_comes_before_init(tmp_path: Path) -> None:
    for first in (packet(sftp.LSTAT, s(b"/")), u32(5) + b"\1" + u32(2), u32(2) + b"\1\0"):
        feed = Feed([first])
        Session(feed, PlainTree(tmp_path)).serve()
        assert feed.sent == []


def test_a_stream_that_breaks_ends_the_session(tmp_path: Path) -> None:
    (tmp_path / "a").touch()

    def broken(_: bytes) -> None:
        raise BrokenPipeError

    before = len(os.listdir("/proc/self/fd"))
    Session(Feed([HELLO], broken), PlainTree(tmp_path)).serve()
    feed = Feed([HELLO, packet(sftp.OPEN, s(b"/a") + u32(R) + u32(0)), packet(sftp.LSTAT, s(b"/a")) * 100])
    feed.on_send = lambda data: broken(data) if b"stat@" in data else None
    Session(feed, PlainTree(tmp_path)).serve()
    assert len(os.listdir("/proc/self/fd")) <= before


class Wrong(PlainTree):
    def lstat(self, path: bytes) -> Stat:
        raise ValueError("a fault of ours")


def test_a_fault_of_ours_is_an_error_of_one_request(tmp_path: Path) -> None:
    with served(Wrong(tmp_path)) as (stream, _):
        client = RawClient(stream)
        client.init()
        with pytest.raises(Failed) as caught:
            client.lstat(b"/a")
        assert caught.value.errno == 5
        client.ok(client.extended(b"ping@wherry"))


def mutated(chance: random.Random, handles: int, bad: float) -> bytes:
    """Something that looks like a request."""
    paths = [b"/", b"/a", b"/d", b"/d/x", b"/..", b"a", b"/a\0", b"/" + b"x" * 300, b"", b"/l", b"//d/./x"]

    def path() -> bytes:
        return s(chance.choice(paths))

    def handle() -> bytes:
        return s(u64(chance.randrange(1, handles + 2)))

    def change() -> bytes:
        return chance.choice(
            [u32(0), attrs(size=chance.randrange(100)), attrs(mode=0o777), attrs(fine=(0, 0, 0, chance.getrandbits(31)))]
        )

    number, some = u32(chance.choice([0, 1, 100, 70000, 0xFFFFFFFF])), s(chance.randbytes(chance.randrange(40)))
    offset = u64(chance.choice([0, 5, 1 << 33, 1 << 63, (1 << 64) - 1]))
    made = chance.choice([
        lambda: (3, path() + u32(chance.randrange(64)) + change()), lambda: (4, handle()),
        lambda: (5, handle() + offset + number),
        lambda: (6, handle() + u64(chance.choice([0, 5, 1 << 20, 1 << 63])) + some), lambda: (7, path()), lambda: (8, handle()),
        lambda: (9, path() + change()), lambda: (10, handle() + change()), lambda: (11, path()), lambda: (12, handle()),
        lambda: (13, path()), lambda: (14, path() + change()), lambda: (15, path()), lambda: (16, path()), lambda: (17, path()),
        lambda: (18, path() + path()), lambda: (19, path()), lambda: (20, some + path()),
        lambda: (200, s(b"open@wherry") + path() + u32(chance.randrange(64)) + change() + number),
        lambda: (200, s(b"list@wherry") + path() + chance.choice([s(b""), handle()]) + number),
        lambda: (200, s(b"fallocate@wherry") + handle() + u32(chance.randrange(4)) + u64(chance.randrange(9)) + u64(50)),
        lambda: (200, s(b"events@wherry")), lambda: (200, s(b"fsync@openssh.com") + handle()),
        lambda: (200, s(b"statvfs@openssh.com") + path()), lambda: (200, s(b"hardlink@openssh.com") + path() + path()),
        lambda: (200, some + path()), lambda: (chance.randrange(256), some),
    ])()  # fmt: skip
    found = bytearray(packet(*made, ident=chance.getrandbits(32)))
    if chance.random() < bad:  # some bytes of it are others
        for _ in range(chance.randrange(1, 4)):
            found[chance.randrange(len(found))] = chance.randrange(256)
    if chance.random() < bad / 5:
        del found[chance.randrange(len(found)) :]
    return bytes(found)


def pieces(data: bytes, chance: random.Random) -> Iterator[bytes]:
    while data:
        size = chance.choice([1, 10, 1000, 100_000])
        yield data[:size]
        data = data[size:]


def test_nonsense_never_breaks_the_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sessions of requests that are good, bad and neither: each ends, nothing stays open, and no fault of ours is met."""
    chance = random.Random(20)
    before = len(os.listdir("/proc/self/fd"))
    threads = set(threading.enumerate())  # those of tests before may end meanwhile, and what they hold with them
    for number in range(150):
        root = tmp_path / str(number)
        root.mkdir()
        (root / "a").write_bytes(b"0123456789")
        (root / "d").mkdir()
        (root / "l").symlink_to("a")
        bad = number % 3 / 20  # how many are no packets
        wanted = b"".join(mutated(chance, 5, bad) for _ in range(chance.randrange(1, 200)))
        feed = Feed([HELLO, *pieces(wanted, chance)])
        Session(feed, PlainTree(root)).serve()
        for sent in feed.sent:
            at = 0
            while at < len(sent):
                at += 4 + struct.unpack_from(">I", sent, at)[0]
            assert at == len(sent)
    assert "nobody thought of" not in caplog.text
    assert len(os.listdir("/proc/self/fd")) <= before and not set(threading.enumerate()) - threads
