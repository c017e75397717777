"""The guest's file system for shares: names that are replaced while they are used, and events that come late."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launcher.sftp.events import ATTRIBUTES, CREATED, DELETED, MODIFIED, RENAMED, Event
from launcher.sftp.positions import read_at

from .sharemount import CHECKED, Everything, Mount, mounted, wait_for
from .test_share_events import push, watching

OLD, NEW = "1" * 50_000, "2" * 60_000
WRITER = """
import os, sys
at = sys.argv[1]
for number in range(300):
    with open(at + '/t', 'w') as file:
        file.write(('1' * 50_000, '2' * 60_000)[number % 2])
    os.rename(at + '/t', at + '/f')
"""
READER = """
import os, select, sys
while not select.select([sys.stdin], [], [], 0)[0]:
    with open(sys.argv[1] + '/f') as file:
        found = file.read()
    assert found in ('1' * 50_000, '2' * 60_000), (len(found), set(found))
"""


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Mount]:
    with mounted(tmp_path, *CHECKED, serve=False) as mount:
        mount.serve(Everything())
        yield mount


@contextmanager
def replays_held(share: Mount, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is pushed meanwhile is replayed at the end: the thread that does it waits for a page of a file that is read."""
    asked, go = threading.Event(), threading.Event()

    def held(*words: int) -> bytes:
        asked.set()
        assert go.wait(60)
        found: bytes = read_at(*words)
        return found

    (share.host / "large").write_bytes(b"x" * 300_000)
    monkeypatch.setattr("launcher.sftp.requests.read_at", held)
    reader = threading.Thread(target=(share.path / "large").read_bytes)
    reader.start()
    try:
        assert asked.wait(60)
        push(share, Event(MODIFIED, False, b"/large"))
        with watching(share.path) as inotify:
            yield
            push(share, Event(CREATED, False, b"/last"))
            go.set()
            wait_for(lambda: ("guest", "CREATE", "last") in inotify.read())
    finally:
        go.set()
        reader.join()


@pytest.mark.parametrize(
    "told",
    [
        [Event(DELETED, False, b"/d/t")],
        [Event(RENAMED, False, b"/d/t", b"/d/f")],
        [Event(CREATED, False, b"/d/t"), Event(RENAMED, False, b"/d/t", b"/d/f"), Event(DELETED, False, b"/d/f")],
    ],
    ids=["deleted", "renamed", "all"],
)
def test_a_late_replay_takes_no_name_away_that_is_there(
    share: Mount, monkeypatch: pytest.MonkeyPatch, told: list[Event]
) -> None:
    """As when the guest's own changes are told back to it after the name has been used again."""
    place = share.path / "d"
    place.mkdir()
    with replays_held(share, monkeypatch):
        push(share, *told)
        (place / "f").write_text("old")
        (place / "t").write_text("new")
        assert sorted(os.listdir(place)) == ["f", "t"]  # all names of it are known, so that others need no question
    os.rename(place / "t", place / "f")
    assert (place / "f").read_text() == "new" == (share.host / "d" / "f").read_text()
    assert os.listdir(place) == ["f"]


def test_what_is_written_when_a_replay_comes_is_seen_by_its_name(share: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    (share.path / "f").write_text("")
    with (share.path / "t").open("w") as file:
        with replays_held(share, monkeypatch):
            push(share, Event(RENAMED, False, b"/t", b"/f"))
        assert (share.path / "t").stat().st_size == 0
        file.write("more")
        file.flush()
        wait_for(lambda: (share.path / "t").stat().st_size == 4, 10)
        assert (share.path / "t").read_text() == "more" and (share.path / "f").read_text() == ""


@contextmanager
def bound(share: Mount, place: Path) -> Iterator[Path]:
    """As -v FILE:FILE of a container: the kernel opens it and has no name to look up."""
    place.touch()
    subprocess.run(["mount", "--bind", share.path / "f", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def replace(share: Mount, text: str) -> None:
    (share.host / "new").write_text(text)
    os.rename(share.host / "new", share.host / "f")


def test_what_is_opened_is_the_file_that_has_the_name_now(share: Mount, tmp_path: Path) -> None:
    """Before any event of it has come."""
    (share.host / "f").write_text(OLD)
    with bound(share, tmp_path / "bound") as file:
        for text in (NEW, OLD, NEW):
            assert file.stat().st_size == len(OLD if text == NEW else NEW)
            replace(share, text)
            assert file.read_text() == text
        (share.host / "f").write_text(OLD)
        assert file.read_text() == OLD == (share.path / "f").read_text()


def test_two_that_open_a_file_while_it_is_replaced_read_one_file(share: Mount, tmp_path: Path) -> None:
    (share.host / "f").write_text(OLD)
    with bound(share, tmp_path / "bound") as file:
        with file.open() as one:
            time.sleep(1)  # for so long what is not watched is believed
            replace(share, NEW)
            with file.open() as two:
                assert [end.read() == OLD for end in (two, one)] == [True, True]
        wait_for(lambda: file.read_text() == NEW, 10)


def test_a_file_that_somebody_writes_is_replaced(share: Mount, tmp_path: Path) -> None:
    (share.host / "f").write_text(OLD)
    (share.host / "old").hardlink_to(share.host / "f")
    with bound(share, tmp_path / "bound") as file, file.open("a") as log:
        replace(share, NEW)
        assert os.listdir(share.path)  # all names are known
        assert (share.path / "f").read_text() == NEW == file.read_text()
        log.write("more")
        log.flush()
        assert (share.path / "f").read_text() == NEW == file.read_text() == (share.host / "f").read_text()
        os.fsync(log.fileno())
        assert os.fstat(log.fileno()).st_size == len(OLD) + 4
    assert (share.host / "old").read_text() == OLD + "more"


def test_who_has_a_file_open_is_told_of_that(share: Mount) -> None:
    (share.host / "f").write_text(OLD)
    with (share.path / "f").open() as file:
        replace(share, NEW)
        push(share, Event(ATTRIBUTES, False, b"/f"))
        with watching(share.path) as inotify:
            push(share, Event(CREATED, False, b"/last"))
            wait_for(lambda: ("guest", "CREATE", "last") in inotify.read())
        assert os.fstat(file.fileno()).st_size == len(OLD) and file.read() == OLD


def test_a_file_that_is_replaced_again_and_again_is_always_there_and_whole(share: Mount) -> None:
    """While events come that are not true, as late ones are not."""
    place = share.path / "d"
    place.mkdir()
    (place / "f").write_text(OLD)
    names = (b"/d/t", b"/d/f")
    lies = [Event(kind, False, name) for name in names for kind in (CREATED, DELETED, MODIFIED, ATTRIBUTES)]
    lies.append(Event(RENAMED, False, *names))
    chance = random.Random(3)
    readers = [subprocess.Popen([sys.executable, "-c", READER, place], stdin=subprocess.PIPE) for _ in range(3)]
    writer = subprocess.Popen([sys.executable, "-c", WRITER, place])
    try:
        while writer.poll() is None and all(reader.poll() is None for reader in readers):
            push(share, chance.choice(lies))
            time.sleep(0.001)
        assert [reader.poll() for reader in readers] == [None] * 3
    finally:
        writer.kill()
        writer.wait()
        for reader in readers:
            reader.communicate(b"end")
    assert (writer.returncode, [reader.returncode for reader in readers]) == (0, [0, 0, 0])
    assert os.listdir(place) == ["f"] == os.listdir(share.host / "d")
