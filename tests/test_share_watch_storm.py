"""Many changes, many folders, and less room than there are: the cost is bounded, and nothing is forgotten silently."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.keeper.shares import watch_places
from launcher.keeper.shares.watch_storm import AT_ONCE, IN_FOLDER, Storm
from launcher.sftp.events import CREATED, DELETED, LOST, MODIFIED, RENAMED, Event
from tests.watching import Watching, watching

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Watching]:
    (tmp_path / "code").mkdir()
    with watching(tmp_path) as made:
        made.watcher.bound({"home": [b"/code"]})
        assert made.share.folder(b"/code")
        yield made
    shutil.rmtree(tmp_path / "code")  # what pytest keeps of several runs would be many files


def folders(home: Watching, count: int, *, looked_at: bool = True) -> list[bytes]:
    found = [b"/code/%05d" % number for number in range(count)]
    for path in found:
        os.mkdir(home.path(path))
    if looked_at:
        assert all(home.share.folder(path) for path in found)
    home.settled(b"/code")
    return found


def write(home: Watching, path: bytes, text: str) -> None:
    with home.at_once():
        Path(home.path(path)).write_text(text)


def covered(events: list[Event], path: bytes) -> bool:
    return any(
        path in (event.path, event.path2) or (event.kind == LOST and path.startswith(event.path.rstrip(b"/") + b"/"))
        for event in events
    )


def test_a_storm_of_20_000_files_is_few_events_that_tell_all(home: Watching) -> None:
    """As git does a checkout: each file is removed and made anew."""
    found = folders(home, 200)
    files = [path + b"/%d" % number for path in found for number in range(100)]
    for path in files:
        Path(home.path(path)).write_text("before")
    home.settled(b"/code")
    for path in files:
        os.unlink(home.path(path))
        Path(home.path(path)).write_text("after")
    home.told.wait(lambda events: covered(events[-2_000:], files[-1]))
    batches = [events for _, events in home.told.batches]
    assert max(map(len, batches)) <= AT_ONCE
    events = home.told.events
    lost = {event.path for event in events if event.kind == LOST}
    single = {event.path for event in events}
    assert all(path in single or path.rpartition(b"/")[0] in lost or b"/code" in lost for path in files)
    # It is over, and quiet again: a single change is told as such.
    home.settled(b"/code")
    write(home, files[0], "once more")
    assert home.settled(b"/code") == [Event(MODIFIED, False, files[0])]


def test_many_in_one_folder_are_one_that_says_look_anew(home: Watching) -> None:
    [crowd, quiet] = folders(home, 2)
    began = time.monotonic()
    for number in range(20_000):
        os.close(os.open(home.path(crowd + b"/%d" % number), os.O_CREAT | os.O_WRONLY))
    Path(home.path(quiet + b"/file")).write_text("")
    events = home.settled(b"/code")
    assert Event(CREATED, False, quiet + b"/file") in events or Event(LOST, True, b"/code") in events
    # A computer so busy that it makes fewer than 280 a second has no storm: each is told.
    assert len(events) < 2_000 + 300 * max(0, time.monotonic() - began - 5)
    assert covered(events, crowd + b"/19999")


def test_20_000_files_that_the_guest_makes_are_no_storm(home: Watching) -> None:
    [folder] = folders(home, 1)
    for number in range(20_000):
        path = folder + b"/%d" % number
        os.close(os.open(home.path(path), os.O_CREAT | os.O_WRONLY))
        home.made(path)
    # Where this thread was held up for long between the two there is doubt, and it is told.
    events = home.settled(b"/code")
    assert len(events) < 200 and all(event.kind == CREATED for event in events)


def test_what_the_kernel_could_not_keep_is_all_lost(home: Watching) -> None:
    found = folders(home, 3)
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with home.at_once():
        for number in range(most + 10):
            os.close(os.open(home.path(found[number % 3] + b"/%d" % number), os.O_CREAT | os.O_WRONLY))
    home.told.wait(lambda events: Event(LOST, True, b"/code") in events)
    assert home.watcher.watches == 0
    home.told.clear()
    assert home.share.folder(found[0])
    write(home, found[0] + b"/after", "")
    home.told.wait(lambda events: events == [Event(CREATED, False, found[0] + b"/after")])


# Folders


def test_of_50_000_folders_the_10_that_were_looked_at_are_watched(home: Watching) -> None:
    for number in range(50):
        os.mkdir(home.path(b"/code/%d" % number))
        for inner in range(1_000):
            os.mkdir(home.path(b"/code/%d/%d" % (number, inner)))
    assert home.watcher.watches == 2  # /code, and / for the name of it
    assert all(home.share.folder(b"/code/0/%d" % number) for number in range(10))
    assert home.watcher.watches == 2 + 1 + 10


def test_when_there_is_no_room_the_oldest_goes_and_is_lost(home: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    found = folders(home, 30, looked_at=False)
    monkeypatch.setattr(home.share._places, "_most", 12)
    assert [home.share.folder(path) for path in found] == [True] * 10 + [False] * 20  # none may go yet
    assert home.settled(b"/code") == []
    monkeypatch.setattr(watch_places, "SETTLED", 0.0)
    monkeypatch.setattr(home.share._places, "_full_until", 0.0)
    assert home.share.folder(found[20])
    assert home.settled(b"/code") == [Event(LOST, True, found[0])]
    assert home.watcher.watches == 12
    Path(home.path(found[0] + b"/unheard")).write_text("")
    write(home, found[20] + b"/heard", "")
    assert home.settled(b"/code") == [Event(CREATED, False, found[20] + b"/heard")]


def test_when_the_user_has_no_more_watches(tmp_path: Path) -> None:
    """In a user namespace of its own, which has limits of its own."""
    script = """
import sys
from pathlib import Path
from tests.watching import watching
root = Path(sys.argv[1])
for number in range(9):
    (root / str(number)).mkdir()
with watching(root) as home:
    home.watcher.bound({"home": [b"/"]})
    found = [home.share.folder(b"/%d" % number) for number in range(9)]
    assert found == [True] * 5 + [False] * 4, found
    (root / "0/heard").write_text("")
    home.told.wait(lambda events: [event.path for event in events] == [b"/0/heard"])
"""
    limited = 'echo 6 >/proc/sys/user/max_inotify_watches && exec "$@"'
    command = ["unshare", "-Ur", "sh", "-c", limited, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        pytest.skip("no user namespaces here")
    subprocess.run([*command, sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)


def test_file_systems_that_do_not_tell_are_not_watched() -> None:
    with watching(Path("/proc")) as home:
        home.watcher.bound({"home": [b"/"]})
        assert not home.share.folder(b"/") and not home.share.folder(b"/sys")
        assert home.watcher.watches == 0


def test_memory_of_20_000_watches(home: Watching) -> None:
    found = folders(home, 20_000, looked_at=False)
    tracemalloc.start()
    try:
        assert all(home.share.folder(path) for path in found)
        used, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert home.watcher.watches == 20_002
    assert used < 20 << 20
    home.watcher.bound({})
    assert home.watcher.watches == 0


# What is made of many


def test_a_rename_out_of_a_crowd_is_heard_where_it_came() -> None:
    crowd = [Event(CREATED, False, b"/a/%d" % number) for number in range(IN_FOLDER)]
    found = Storm().thin([*crowd, Event(RENAMED, False, b"/a/0", b"/b/0")], [b"/"], 1.0)
    assert found == [Event(LOST, True, b"/a"), Event(CREATED, False, b"/b/0")]


def test_too_many_everywhere_are_one_for_each_that_is_bound() -> None:
    many = [Event(CREATED, False, b"/a/%d/x" % number) for number in range(AT_ONCE + 1)]
    assert Storm().thin([*many, Event(DELETED, False, b"/b/x")], [b"/a", b"/b", b"/c"], 1.0) == [
        Event(LOST, True, b"/a"), Event(LOST, True, b"/b"),
    ]  # fmt: skip
    assert Storm().thin([*many, Event(LOST, True, b"/")], [b"/a"], 1.0) == [Event(LOST, True, b"/"), Event(LOST, True, b"/a")]
