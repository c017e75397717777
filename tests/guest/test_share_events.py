"""The guest's file system for shares: changes of this computer reach inotify, and no replay of one changes anything."""

from __future__ import annotations

import ctypes
import os
import random
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launcher.sftp.events import ATTRIBUTES, CREATED, DELETED, LOST, MODIFIED, RENAMED, Event

from .sharemount import CHECKED, Everything, Mount, mounted, wait_for

IN = {
    "MODIFY": 0x2,
    "ATTRIB": 0x4,
    "MOVED_FROM": 0x40,
    "MOVED_TO": 0x80,
    "CREATE": 0x100,
    "DELETE": 0x200,
    "DELETE_SELF": 0x400,
}
IS_FOLDER = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    def __init__(self, *places: Path) -> None:
        self.fd = libc.inotify_init1(os.O_NONBLOCK)
        self.places = {libc.inotify_add_watch(self.fd, bytes(place), sum(IN.values())): place.name for place in places}
        self.seen: list[tuple[str, str, str]] = []

    def read(self) -> list[tuple[str, str, str]]:
        """(name of what is watched, event, name)"""
        try:
            data = os.read(self.fd, 1 << 20)
        except BlockingIOError:
            data = b""
        at = 0
        while at < len(data):
            watch, mask, _, size = struct.unpack_from("iIII", data, at)
            name = data[at + 16 : at + 16 + size].rstrip(b"\0").decode()
            kinds = [kind for kind, bit in IN.items() if mask & bit]
            self.seen += [(self.places.get(watch, ""), kind + ("/" if mask & IS_FOLDER else ""), name) for kind in kinds]
            at += 16 + size
        return self.seen

    def expect(self, *events: tuple[str, str, str]) -> None:
        wait_for(lambda: set(events) <= set(self.read()))
        self.seen.clear()


@contextmanager
def watching(*places: Path) -> Iterator[Inotify]:
    inotify = Inotify(*places)
    try:
        yield inotify
    finally:
        os.close(inotify.fd)


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Mount]:
    with mounted(tmp_path, *CHECKED, serve=False) as mount:
        mount.serve(Everything())
        yield mount


def push(mount: Mount, *events: Event) -> None:
    assert mount.server is not None
    mount.server.session.push(events)


def test_each_kind_is_seen_by_who_watches(share: Mount) -> None:
    (share.host / "d").mkdir()
    (share.host / "f").write_text("1")
    with watching(share.path, share.path / "d", share.path / "f") as inotify:
        (share.host / "new").write_text("new")
        push(share, Event(CREATED, False, b"/new"))
        inotify.expect(("guest", "CREATE", "new"))
        assert (share.path / "new").read_text() == "new"
        (share.host / "f").write_text("12345")
        push(share, Event(MODIFIED, False, b"/f"))
        inotify.expect(("guest", "MODIFY", "f"), ("f", "MODIFY", ""))
        assert (share.path / "f").read_text() == "12345"
        (share.host / "f").chmod(0o700)
        push(share, Event(ATTRIBUTES, False, b"/f"))
        inotify.expect(("guest", "ATTRIB", "f"), ("f", "ATTRIB", ""))
        assert (share.path / "f").stat().st_mode & 0o777 == 0o700
        os.rename(share.host / "f", share.host / "d" / "g")
        push(share, Event(RENAMED, False, b"/f", b"/d/g"))
        inotify.expect(("guest", "MOVED_FROM", "f"), ("d", "MOVED_TO", "g"))
        assert not (share.path / "f").exists() and (share.path / "d" / "g").read_text() == "12345"
        os.unlink(share.host / "d" / "g")
        push(share, Event(DELETED, False, b"/d/g"))
        inotify.expect(("d", "DELETE", "g"), ("f", "DELETE_SELF", ""))
        assert not (share.path / "d" / "g").exists()
        (share.host / "sub").mkdir()
        push(share, Event(CREATED, True, b"/sub"))
        inotify.expect(("guest", "CREATE/", "sub"))
        assert os.listdir(share.path / "sub") == []
        os.rmdir(share.host / "sub")
        push(share, Event(DELETED, True, b"/sub"))
        inotify.expect(("guest", "DELETE/", "sub"))
        assert not (share.path / "sub").exists()
        push(share, Event(LOST, True, b"/"))
        inotify.expect(("d", "ATTRIB/", ""), ("guest", "ATTRIB/", ""))
    assert sorted(os.listdir(share.path)) == ["d", "new"] == sorted(os.listdir(share.host))


def test_what_the_kernel_never_heard_of(share: Mount) -> None:
    """Changes of files in a folder that is watched by a program, that nobody has looked at."""
    (share.host / "d").mkdir()
    for name in ("changed", "moved", "gone"):
        (share.host / "d" / name).touch()
    with watching(share.path / "d") as inotify:
        push(share, Event(MODIFIED, False, b"/d/changed"), Event(ATTRIBUTES, False, b"/d/changed"))
        inotify.expect(("d", "MODIFY", "changed"), ("d", "ATTRIB", "changed"))
        os.rename(share.host / "d" / "moved", share.host / "d" / "here")
        push(share, Event(RENAMED, False, b"/d/moved", b"/d/here"))
        inotify.expect(("d", "MOVED_FROM", "moved"), ("d", "MOVED_TO", "here"))
        os.unlink(share.host / "d" / "gone")
        push(share, Event(DELETED, False, b"/d/gone"))
        inotify.expect(("d", "DELETE", "gone"))
        # Out of sight, and into it.
        push(share, Event(RENAMED, False, b"/d/here", b"/unknown/folder/x"))
        inotify.expect(("d", "DELETE", "here"))
        push(share, Event(RENAMED, False, b"/unknown/folder/x", b"/d/there"))
        inotify.expect(("d", "CREATE", "there"))
        push(share, Event(CREATED, False, b"/unknown/folder/x"), Event(MODIFIED, False, b"/unknown/x"))
    assert sorted(os.listdir(share.path / "d")) == ["changed", "here"]


def test_a_file_that_an_editor_replaces(share: Mount) -> None:
    (share.host / "f").write_text("old")
    assert (share.path / "f").read_text() == "old"
    with watching(share.path, share.path / "f") as inotify:
        (share.host / ".f.new").write_text("new")
        os.rename(share.host / ".f.new", share.host / "f")
        push(share, Event(CREATED, False, b"/.f.new"), Event(RENAMED, False, b"/.f.new", b"/f"))
        inotify.expect(("guest", "CREATE", ".f.new"), ("guest", "MOVED_FROM", ".f.new"), ("guest", "MOVED_TO", "f"))
        assert (share.path / "f").read_text() == "new"


def test_what_is_watched_is_believed_until_it_is_told_otherwise(share: Mount) -> None:
    (share.host / "f").write_text("1")
    assert share.server is not None
    asked = share.server.stream.asked
    assert (share.path / "f").stat().st_size == 1 and not (share.path / "none").exists()
    time.sleep(1.2)
    before = asked.total()
    assert (share.path / "f").stat().st_size == 1 and not (share.path / "none").exists()
    assert asked.total() == before
    (share.host / "f").write_text("22")
    (share.host / "none").touch()
    push(share, Event(MODIFIED, False, b"/f"), Event(CREATED, False, b"/none"))
    wait_for(lambda: (share.path / "f").stat().st_size == 2 and (share.path / "none").exists(), 10)
    # And when there is nobody any more who would tell.
    (share.path / "missing").exists()
    share.lose()
    (share.host / "f").write_text("333")
    (share.host / "missing").touch()
    share.serve(Everything())
    wait_for(lambda: (share.path / "f").stat().st_size == 3 and (share.path / "missing").exists(), 10)


def test_a_read_only_share_tells_too(tmp_path: Path) -> None:
    with mounted(tmp_path, *CHECKED, mode="ro", serve=False) as mount:
        mount.serve(Everything())
        (mount.host / "f").touch()
        with watching(mount.path) as inotify:
            push(mount, Event(CREATED, False, b"/g"), Event(MODIFIED, False, b"/f"), Event(DELETED, False, b"/f"))
            inotify.expect(("guest", "CREATE", "g"), ("guest", "MODIFY", "f"), ("guest", "DELETE", "f"))
        assert os.listdir(mount.host) == ["f"] == os.listdir(mount.path)


def test_nothing_is_replayed_where_something_is_mounted(share: Mount) -> None:
    volume = share.path / "d"
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", volume], check=True)
    try:
        (volume / "f").write_text("volume")
        with watching(share.path) as inotify:
            push(share, Event(CREATED, True, b"/d"), Event(CREATED, False, b"/d/f"), Event(MODIFIED, False, b"/d/f"))
            push(share, Event(DELETED, False, b"/d/f"), Event(CREATED, False, b"/last"))
            inotify.expect(("guest", "ATTRIB/", ""), ("guest", "CREATE", "last"))
        assert (volume / "f").read_text() == "volume"
    finally:
        subprocess.run(["umount", "-l", volume], check=True)


def test_a_storm_ends_as_changes_of_folders(share: Mount) -> None:
    (share.host / "d").mkdir()
    with watching(share.path / "d", share.path) as inotify:
        for start in range(0, 20_000, 500):
            push(share, *[Event(CREATED, False, b"/d/%d" % number) for number in range(start, start + 500)])
        push(share, Event(CREATED, False, b"/last"))
        wait_for(lambda: ("guest", "CREATE", "last") in inotify.read() or ("guest", "ATTRIB/", "") in inotify.seen)
    assert os.listdir(share.host) == ["d"] == os.listdir(share.path)
    assert os.listdir(share.host / "d") == [] == os.listdir(share.path / "d")


def test_no_replay_changes_anything(share: Mount) -> None:
    """Thousands of changes of this computer, told late and out of step, while their names are used again and again."""
    chance = random.Random(8)
    names = [f"{folder}{letter}" for folder in ("", "d/", "e/") for letter in "ijklmnop"]
    for folder in "de":
        (share.host / folder).mkdir()
    expected: dict[str, str] = {}
    stopped = threading.Event()
    reader = threading.Thread(target=look, args=(share.path, names, stopped))
    reader.start()
    late: list[Event] = []
    try:
        with watching(share.path, share.path / "d", share.path / "e") as inotify:
            for number in range(10_000):
                late += change(share.host, names, expected, chance, number)
                if len(late) > 20 or chance.random() < 0.3:
                    chance.shuffle(late)
                    push(share, *late)
                    late.clear()
                if number % 100 == 0:
                    time.sleep(0.01)
                    inotify.read()  # what nobody reads is lost beyond fs.inotify.max_queued_events, 16,384
            push(share, Event(CREATED, False, b"/the last"))
            wait_for(lambda: ("guest", "CREATE", "the last") in inotify.read(), 60)
            assert {kind for _, kind, _ in inotify.seen} >= {"CREATE", "DELETE", "MOVED_FROM", "MOVED_TO", "MODIFY"}
    finally:
        stopped.set()
        reader.join()
    assert contents(share.host) == expected

    def same() -> bool:
        try:
            return contents(share.path) == expected
        except OSError:  # a name that it has from before
            return False

    wait_for(same, 30)


def change(host: Path, names: list[str], expected: dict[str, str], chance: random.Random, number: int) -> list[Event]:
    name, other = chance.sample(names, 2)
    path, path2 = b"/" + name.encode(), b"/" + other.encode()
    kind = chance.choice((CREATED, CREATED, DELETED, RENAMED, MODIFIED))
    if kind == CREATED or name not in expected:
        was = name in expected
        (host / name).write_text(str(number))
        expected[name] = str(number)
        return [Event(MODIFIED if was else CREATED, False, path), Event(DELETED, False, path2)]  # the second is a lie
    if kind == DELETED:
        (host / name).unlink()
        del expected[name]
        return [Event(DELETED, False, path)]
    if kind == RENAMED:
        os.rename(host / name, host / other)
        expected[other] = expected.pop(name)
        return [Event(RENAMED, False, path, path2)]
    (host / name).write_text(f"{number} again")
    expected[name] = f"{number} again"
    return [Event(MODIFIED, False, path), Event(ATTRIBUTES, False, path)]


def look(place: Path, names: list[str], stopped: threading.Event) -> None:
    while not stopped.is_set():
        for name in names:
            try:
                (place / name).read_text()
                os.listdir(place / "d")
            except OSError:
                pass


def contents(place: Path) -> dict[str, str]:
    found = [Path(folder, name) for folder, _, files in os.walk(place) for name in files]
    return {str(path.relative_to(place)): path.read_text() for path in found}


def test_what_the_kernel_has_is_opened_without_a_question(share: Mount) -> None:
    file = share.path / "f"
    (share.host / "f").write_text("content")
    os.utime(share.host / "f", (5, 5))
    wait_for(lambda: time.time() - (share.host / "f").stat().st_ctime > 3)
    assert file.read_text() == "content"
    assert share.server is not None
    before = share.server.stream.asked["open"]
    assert file.read_text() == "content" and share.server.stream.asked["open"] == before
    # Whoever has it open in this way keeps it, also when its name goes and the kernel drops the pages.
    with file.open() as one, file.open() as two:
        assert share.server.stream.asked["open"] == before
        os.rename(file, share.path / "g")
        (share.path / "h").write_text("another")
        os.rename(share.path / "h", share.path / "g")
        for end in (one, two):
            os.posix_fadvise(end.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert end.read() == "content"
    assert (share.path / "g").read_text() == "another"
    wait_for(lambda: time.time() - (share.host / "g").stat().st_ctime > 3)
    assert [(share.path / "g").read_text() for _ in range(2)] == ["another"] * 2
    (share.host / "g").write_text("changed")
    push(share, Event(MODIFIED, False, b"/g"))
    wait_for(lambda: (share.path / "g").read_text() == "changed", 10)
