"""What chown and chmod asked for outlives kills, upgrades, damage and the files themselves."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from launcher import host
from launcher.sftp import ownerfile
from launcher.sftp.owners import Owners
from launcher.sftp.remembered import Owner, Remembered

POSTGRES = Owner(999, 999, 0o700)
DEVICE = 41
Opener = Callable[..., Owners]


class Stat(NamedTuple):
    """A file of a system whose stat has the birth time."""

    st_ino: int
    st_dev: int = DEVICE
    st_birthtime: float = 1_700_000_000.25
    st_birthtime_ns: int = 1_700_000_000_250_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home.owners"


@pytest.fixture
def opened(file: Path) -> Iterator[Opener]:
    made: list[Owners] = []

    def open_it(**options: Any) -> Owners:
        made.append(Owners(file, options.pop("device", DEVICE), **options))
        return made[-1]

    yield open_it
    for owners in made:
        owners.close()


def damage(path: Path, start: int) -> None:
    with path.open("r+b") as writer:
        writer.seek(start)
        writer.write(random.Random(1).randbytes(path.stat().st_size - start))


def test_what_was_remembered_is_there_again(opened: Opener, file: Path) -> None:
    owners = opened()
    as_the_tree_sees_it: Remembered = owners
    assert as_the_tree_sees_it.empty
    assert owners.empty
    owners.remember(Stat(1), POSTGRES)
    owners.remember(Stat(2), Owner(0xFFFFFFFE, 0, None))
    owners.remember(Stat((1 << 64) - 1, (1 << 64) - 1), Owner(1, 2, 0o7777))
    owners.remember(Stat(1 << 100), Owner(3, 4, 0))
    owners.remember(Stat(1), Owner(5, 6, 0o640))
    owners.forget(Stat(2))
    owners.forget(Stat(77))
    owners.close()
    again = opened()
    assert not again.empty and again.count == 3
    assert again.of(Stat(1)) == Owner(5, 6, 0o640)
    assert again.of(Stat(2)) is None
    assert again.of(Stat((1 << 64) - 1, (1 << 64) - 1)) == Owner(1, 2, 0o7777)
    assert again.of(Stat(1 << 100)) == Owner(3, 4, 0)
    assert again.of(Stat(1, DEVICE + 1)) is None
    assert again.notes() == []
    again.close()
    assert [path.name for path in file.parent.iterdir()] == [file.name], "the log is litter"


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_nobody_else_reads_the_file(opened: Opener, file: Path) -> None:
    opened().remember(Stat(1), POSTGRES)
    assert {path.stat().st_mode & 0o777 for path in file.parent.iterdir()} == {0o600}


def test_the_number_of_the_disk_may_change(opened: Opener, file: Path) -> None:
    owners = opened()
    owners.remember(Stat(1), POSTGRES)
    owners.close()
    later = Owners(file, DEVICE + 1)
    try:
        assert later.of(Stat(1, DEVICE + 1)) == POSTGRES
        assert later.of(Stat(1, DEVICE)) is None
    finally:
        later.close()


@pytest.mark.skipif(host.current().NAME != "linux", reason="statx is Linux's")
def test_an_inode_that_is_used_again_is_another_file(opened: Opener, tmp_path: Path) -> None:
    owners = opened()
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        path = tmp_path / "PG_VERSION"
        path.write_text("15")
        born = host.current().birth_time(path.stat(), (folder, b"PG_VERSION"))
        if born is None:
            pytest.skip("this file system keeps no birth times")
        assert abs(born / 1e6 - path.stat().st_mtime) < 3600
        first = path.stat()
        owners.remember(first, POSTGRES, (folder, b"PG_VERSION"))
        assert owners.of(first, (folder, b"PG_VERSION")) == POSTGRES
        with path.open() as reader:
            assert owners.of(first, reader.fileno()) == POSTGRES
        os.utime(path, (1, 1))
        os.rename(path, tmp_path / "moved")
        assert owners.of(path.with_name("moved").stat(), (folder, b"moved")) == POSTGRES, "it is the same file"
        # One with the same inode is not to be had at will: what was remembered is made older instead.
        owners.close()
        with sqlite3.connect(tmp_path / "home.owners") as connection:
            connection.execute("UPDATE owner SET birth = birth - 10000")
        connection.close()
        owners = opened()
        assert owners.of(first, (folder, b"moved")) is None
        assert owners.empty, "it is dropped for good"
        assert owners.of(first) is None
    finally:
        os.close(folder)


@pytest.mark.skipif(host.current().NAME != "linux", reason="elsewhere a stat has the birth time")
def test_the_tree_tells_a_file_from_a_later_one_with_its_inode(opened: Opener, tmp_path: Path) -> None:
    """What the host deletes nobody tells us of, and ext4 gives the inode to the next file."""
    from launcher.sftp.policy import Policy
    from launcher.sftp.stat import Change
    from launcher.sftp.tree import Tree

    root = tmp_path / "share"
    root.mkdir()
    owners = opened(device=root.stat().st_dev)
    tree = Tree(root, Policy(root), owners)
    try:
        own = root.stat().st_uid
        tree.open(b"/made", os.O_CREAT | os.O_RDWR, 0o644).close()
        tree.change(b"/made", Change(uid=999, mode=0o400), follow=False)
        with_owner = tree.open(b"/made", os.O_RDONLY, 0)
        shown = [tree.lstat(b"/made"), dict(tree.listdir(b"/"))[b"made"], tree.fstat(with_owner)]
        assert {(one.uid, one.mode & 0o777) for one in shown} == {(999, 0o400)}
        tree.fchange(with_owner, Change(gid=998))
        with_owner.close()
        assert tree.lstat(b"/made").gid == 998
        if all(packed >> 80 == 0 for packed in owners._rows.values()):
            pytest.skip("this file system keeps no birth times")
        # All files of the store are made older, as if they were deleted and others had come.
        owners._rows = {key: packed - (10_000 << 80) for key, packed in owners._rows.items()}
        assert dict(tree.listdir(b"/"))[b"made"].uid == own
        assert owners.empty
        tree.change(b"/made", Change(uid=999), follow=False)
        owners._rows = {key: packed - (10_000 << 80) for key, packed in owners._rows.items()}
        tree.change(b"/made", Change(gid=998), follow=False)
        assert (tree.lstat(b"/made").uid, tree.lstat(b"/made").gid) == (own, 998)
        tree.unlink(b"/made")
        assert owners.empty
        tree.change(b"/", Change(uid=70), follow=False)
        tree.mkdir(b"/data", 0o700)
        assert tree.lstat(b"/data").uid == 70
    finally:
        tree.close()


@pytest.mark.skipif(os.name != "posix", reason="the module of macOS is POSIX")
def test_birth_times_of_stats(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.host import macos, windows

    for module in (macos, windows):
        monkeypatch.setattr(host, "current", lambda module=module: module)
        owners = opened()
        owners.remember(Stat(1), POSTGRES)
        assert owners.of(Stat(1, DEVICE, 1_700_000_000.2500007, 1_700_000_000_250_000_700)) == POSTGRES
        assert owners.of(Stat(1, DEVICE, 1_700_000_000.26, 1_700_000_000_260_000_000)) is None
        assert owners.empty
        owners.close()


def test_the_least_recently_remembered_go(opened: Opener) -> None:
    owners = opened(most=1000)
    for inode in range(1000):
        owners.remember(Stat(inode), POSTGRES)
    owners.remember(Stat(0), Owner(1, 1, None))
    for inode in range(1000, 1100):
        owners.remember(Stat(inode), POSTGRES)
    assert 900 < owners.count <= 1000
    kept = {inode for inode in range(1100) if owners.of(Stat(inode))}
    assert 0 in kept and 1 not in kept and set(range(200, 1100)) <= kept
    owners.close()
    again = opened(most=1000)
    assert {inode for inode in range(1100) if again.of(Stat(inode))} == kept
    again.close()
    assert opened(most=10).count <= 10


def test_what_is_there_already_is_not_written(opened: Opener, file: Path) -> None:
    owners = opened()
    owners.remember(Stat(1), POSTGRES)
    before = file.with_name(f"{file.name}-wal").read_bytes()
    owners.remember(Stat(1), POSTGRES)
    assert file.with_name(f"{file.name}-wal").read_bytes() == before


WRITER = """
import random, sys
from pathlib import Path
from tests.test_sftp_owners import DEVICE, Stat
from launcher.sftp.owners import Owners
from launcher.sftp.remembered import Owner
owners = Owners(Path(sys.argv[1]), DEVICE)
first = int(sys.argv[2])
assert owners.notes() == []
chance = random.Random(first)
for turn in range(first, first + 100_000):
    inode = turn % 997
    if chance.random() < 0.1:
        owners.forget(Stat(inode))
        sys.stdout.write(f"{inode} -\\n")
    else:
        owners.remember(Stat(inode), Owner(turn, inode, None))
        sys.stdout.write(f"{inode} {turn}\\n")
    sys.stdout.flush()
"""


def test_a_kill_loses_nothing_that_was_acknowledged(opened: Opener, file: Path) -> None:
    chance = random.Random(5)
    known: dict[int, int | None] = {}
    turn = 1
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, file, str(turn)], stdout=subprocess.PIPE, cwd=Path.cwd())
        assert writer.stdout is not None
        after = chance.randrange(1, 3000)
        for said, line in enumerate(writer.stdout):
            if said == after:
                writer.kill()
            if not line.endswith(b"\n"):  # cut off
                continue
            number, _, uid = line.decode().strip().partition(" ")
            known[int(number)] = None if uid == "-" else int(uid)
            turn += 1
        writer.stdout.close()
        assert writer.wait() != 0
        owners = opened()
        assert owners.notes() == []
        # One more may have been done, and not been said.
        late = turn % 997
        for inode, owner in known.items():
            found = owners.of(Stat(inode))
            assert inode == late or (found and found.uid) == owner
        known[late] = (found := owners.of(Stat(late))) and found.uid
        owners.close()
        turn += 1


def test_a_power_cut_takes_the_last_and_damages_nothing(opened: Opener, file: Path, tmp_path: Path) -> None:
    """A log whose end never reached the disk, or only in part."""
    owners = opened()
    for inode in range(100):
        owners.remember(Stat(inode), POSTGRES)
    owners._file.sync()
    for inode in range(100, 200):
        owners.remember(Stat(inode), POSTGRES)
    whole, log = file.read_bytes(), file.with_name(f"{file.name}-wal").read_bytes()
    chance = random.Random(3)
    counts = set()
    for number in range(40):
        cut = chance.randrange(len(log))
        copy = tmp_path / f"{number}.owners"
        copy.write_bytes(whole)
        copy.with_name(f"{copy.name}-wal").write_bytes(log[:cut] + chance.randbytes(chance.choice((0, len(log) - cut))))
        after = Owners(copy, DEVICE)
        try:
            assert after.notes() == []
            assert after.count >= 100
            assert all(after.of(Stat(inode)) == POSTGRES for inode in range(after.count)), "what is lost is the end"
            counts.add(after.count)
        finally:
            after.close()
    assert len(counts) > 5


def test_many_threads(opened: Opener) -> None:
    owners = opened(most=300)

    def work(number: int) -> None:
        for inode in range(400):
            owners.remember(Stat(inode), Owner(number, inode, None))
            found = owners.of(Stat(inode))
            assert found is None or found.gid == inode
            owners.forget(Stat(inode - 50))

    failed: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    there = {inode: owners.of(Stat(inode)) for inode in range(400)}
    owners.close()
    again = opened(most=300)
    assert {inode: again.of(Stat(inode)) for inode in range(400)} == there


@pytest.mark.parametrize("start", [0, 1024, 5000])
def test_a_damaged_file_is_set_aside(opened: Opener, file: Path, start: int) -> None:
    owners = opened()
    for inode in range(1000):
        owners.remember(Stat(inode), POSTGRES)
    owners.close()
    damage(file, start)
    again = opened()
    assert again.empty
    (note,) = again.notes()
    assert "damaged" in note and str(file.with_name("home.owners.aside")) in note
    assert again.notes() == []
    again.remember(Stat(1), POSTGRES)
    again.close()
    assert opened().of(Stat(1)) == POSTGRES
    assert file.with_name("home.owners.aside").exists()


def test_a_file_that_goes_bad_while_it_is_open_is_written_anew(opened: Opener, file: Path) -> None:
    owners = opened()
    owners._file.fill(ownerfile.Row(0, inode, 0, 999, 999, None) for inode in range(100_000))  # more than SQLite's cache
    owners.close()
    owners = opened()
    damage(file, 1024)
    chance = random.Random(1)
    for count in range(1000):
        owners.remember(Stat(chance.randrange(200_000)), Owner(1, 1, count))
        if notes := owners.notes():
            break
    assert "damaged" in notes[0]
    there = {inode: owners.of(Stat(inode)) for inode in range(200_000)}
    assert owners.count >= 100_000
    owners.close()
    again = opened()
    assert again.notes() == []
    assert {inode: again.of(Stat(inode)) for inode in range(200_000)} == there


def test_a_newer_file_is_set_aside(opened: Opener, file: Path) -> None:
    owners = opened()
    owners.remember(Stat(1), POSTGRES)
    owners.close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version=7")
    connection.close()
    again = opened()
    assert again.empty
    assert "version 7" in again.notes()[0]
    aside = sqlite3.connect(file.with_name("home.owners.aside"))
    assert aside.execute("SELECT uid FROM owner").fetchall() == [(999,)]
    aside.close()


def test_a_file_with_other_tables_is_set_aside(opened: Opener, file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE owner (turn, device, inode, birth, uid, gid, mode)")
        connection.execute("INSERT INTO owner VALUES (1, 'a', NULL, 1.5, '', '', '')")
        connection.execute("PRAGMA user_version=1")
    connection.close()
    owners = opened()
    assert "damaged" in owners.notes()[0]
    owners.remember(Stat(1), POSTGRES)


def test_an_older_file_is_upgraded(opened: Opener, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = opened()
    owners.remember(Stat(1), POSTGRES)
    owners.close()
    steps = ownerfile.STEPS
    # A step that fails leaves the file as it was.
    monkeypatch.setattr(
        ownerfile, "STEPS", (*steps, "ALTER TABLE owner ADD COLUMN seen INTEGER", "ALTER TABLE none DROP COLUMN x")
    )
    with pytest.raises(ownerfile.Unusable):
        ownerfile.OwnerFile(file)
    monkeypatch.setattr(ownerfile, "STEPS", (*steps, "ALTER TABLE owner ADD COLUMN seen INTEGER"))
    upgraded = opened()
    assert upgraded.of(Stat(1)) == POSTGRES
    assert upgraded.notes() == []
    upgraded.close()
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert connection.execute("SELECT uid, seen FROM owner").fetchall() == [(999, None)]
    connection.close()


def test_a_file_that_another_has_is_left_alone(opened: Opener, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownerfile, "_WAIT_SECONDS", 0)
    owners = opened()
    owners.remember(Stat(1), POSTGRES)
    second = opened()
    assert "another process has it" in second.notes()[0]
    second.remember(Stat(2), POSTGRES)
    assert second.of(Stat(2)) == POSTGRES
    owners.remember(Stat(3), POSTGRES)
    owners.close()
    second.close()
    again = opened()
    assert (again.of(Stat(1)), again.of(Stat(2)), again.of(Stat(3))) == (POSTGRES, None, POSTGRES)


def test_no_place_for_the_file_is_a_note(tmp_path: Path) -> None:
    owners = Owners(tmp_path / "missing" / "file", DEVICE)
    try:
        assert "until the share ends" in owners.notes()[0]
        owners.remember(Stat(1), POSTGRES)
        assert owners.of(Stat(1)) == POSTGRES
    finally:
        owners.close()


def test_a_full_disk_is_told_and_nothing_is_remembered(opened: Opener) -> None:
    owners = opened()
    owners.remember(Stat(1), POSTGRES)
    pages = owners._file._connection.execute("PRAGMA page_count").fetchone()[0]
    owners._file._connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(OSError) as raised:
        for inode in range(2, 1000):
            owners.remember(Stat(inode), POSTGRES)
    assert raised.value.errno == errno.ENOSPC
    assert owners.of(Stat(999)) is None
    assert owners.of(Stat(1)) == POSTGRES
    owners.forget(Stat(1))
    assert owners.of(Stat(1)) is None
    there = owners.count
    owners.close()
    assert opened().count == there


def test_what_is_in_memory_is_compact(opened: Opener) -> None:
    owners = opened()
    owners._file.fill(
        ownerfile.Row(0, 10_000_000 + inode * 7, 1_700_000_000_000_000 + inode, 999, 999, 0o600) for inode in range(100_000)
    )
    owners.close()
    tracemalloc.start()
    try:
        again = opened()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert again.count == 100_000
    assert used < 20_000_000
