"""Each request of launcher/sftp, packet by packet, on a plain folder: provisioning/shares.md is what is tested."""

from __future__ import annotations

import errno
import os
import stat as modes
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.sftp.stat import Stat
from tests import sftpclient as sftp
from tests.sftpclient import Failed, Fields, RawClient, attrs, s, served, u32, u64
from tests.sftptree import PlainTree

R, W, APPEND, CREAT, TRUNC, EXCL = sftp.R, sftp.W, sftp.APPEND, sftp.CREAT, sftp.TRUNC, sftp.EXCL


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    place.mkdir()
    return place


@pytest.fixture
def client(root: Path) -> Iterator[RawClient]:
    with served(PlainTree(root)) as (stream, _):
        client = RawClient(stream)
        client.init()
        yield client


@pytest.fixture
def plain(root: Path) -> Iterator[RawClient]:
    with served(PlainTree(root)) as (stream, _):
        client = RawClient(stream)
        client.init(wherry=False)
        yield client


def fails(number: int, call: Callable[..., object], *args: object) -> Failed:
    with pytest.raises(Failed) as caught:
        call(*args)
    assert caught.value.errno == number
    return caught.value


def test_version_names_what_is_there(root: Path) -> None:
    with served(PlainTree(root)) as (stream, _):
        found = RawClient(stream).init()
    assert found == {
        b"posix-rename@openssh.com": b"1", b"statvfs@openssh.com": b"2", b"fstatvfs@openssh.com": b"2",
        b"hardlink@openssh.com": b"1", b"fsync@openssh.com": b"1", b"lsetstat@openssh.com": b"1", b"wherry@wherry": b"1",
    }  # fmt: skip


def test_ours_is_not_there_for_others(plain: RawClient, root: Path) -> None:
    (root / "a").write_bytes(b"x")
    for name in (b"ping@wherry", b"open@wherry", b"list@wherry", b"events@wherry", b"fallocate@wherry"):
        assert plain.status(plain.extended(name, s(b"/a"))).code == 8
    shown = plain.lstat(b"/a")
    assert shown.size == 1 and shown.ino is None
    with pytest.raises(Failed) as caught:
        plain.lstat(b"/none")
    assert caught.value.code == 2


def test_attributes_are_what_the_system_says(client: RawClient, root: Path) -> None:
    (root / "a").write_bytes(b"x" * 5000)
    (root / "a").chmod(0o751)
    os.utime(root / "a", ns=(-1_500_000_000, 1_234_567_890_123_456_789))
    os.link(root / "a", root / "b")
    found, shown = (root / "a").stat(), client.lstat(b"/a")
    assert (shown.mode, shown.size, shown.uid, shown.gid) == (found.st_mode, 5000, found.st_uid, found.st_gid)
    assert (shown.ino, shown.nlink, shown.blocks, shown.watched) == (found.st_ino, 2, found.st_blocks, 0)
    assert (shown.atime_ns, shown.mtime_ns, shown.ctime_ns) == (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    assert (shown.atime, shown.mtime) == (0, 1_234_567_890)  # version 3 knows no time before 1970


def test_errors_have_a_code_and_linux_number(client: RawClient, root: Path) -> None:
    (root / "file").touch()
    (root / "full").mkdir()
    (root / "full" / "x").touch()
    assert fails(2, client.lstat, b"/none").code == 2
    assert fails(20, client.lstat, b"/file/x").code == 2
    assert client.status(client.request(sftp.RMDIR, s(b"/full"))).errno == 39
    assert client.status(client.request(sftp.MKDIR, s(b"/full") + u32(0))).errno == 17
    assert client.status(client.request(99, b"")).code == 8
    assert client.status(client.extended(b"nobody@nowhere")).errno == 38


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"", 22), (b"a", 22), (b"/..", 22), (b"/a/../b", 22), (b"../a", 22), (b"/a\0b", 22),
        (b"/" + b"n" * 256, 36), (b"/a/" + b"n" * 256 + b"/b", 36), (b"/nn" * 1366, 36),
    ],
)  # fmt: skip
def test_paths_that_are_none(client: RawClient, path: bytes, number: int) -> None:
    fails(number, client.lstat, path)
    fails(number, client.open, path, W | CREAT)
    fails(number, client.open_whole, path)
    if path:
        fails(number, client.list, path)


def test_paths_are_cleaned(client: RawClient, root: Path) -> None:
    (root / "d").mkdir()
    (root / "d" / "..x").touch()
    (root / "d" / ("n" * 255)).touch()
    for path in (b"/d/..x", b"//d//..x", b"/./d/./..x", b"/d/..x/", b"/d/..x/."):
        assert modes.S_ISREG(client.lstat(path).mode)
    assert client.lstat(b"/d/" + b"n" * 255).ino
    assert client.lstat(b"/").ino == root.stat().st_ino


def test_realpath_cleans_text_only(client: RawClient) -> None:
    for text, path in {
        b".": b"/", b"": b"/", b"/a/./b//c/": b"/a/b/c", b"a/b": b"/a/b", b"/a/../../..": b"/", b"..": b"/", b"/a/b/..": b"/a",
    }.items():  # fmt: skip
        assert client.name(client.request(sftp.REALPATH, s(text))) == path
    assert client.status(client.request(sftp.REALPATH, s(b"/a\0"))).errno == 22


def test_names_are_bytes(client: RawClient, root: Path) -> None:
    name = bytes(range(1, 47)) + bytes(range(48, 256))
    client.close(client.open(b"/" + name, W | CREAT))
    assert os.listdir(os.fsencode(root)) == [name]
    assert list(client.list(b"/")) == list(client.readdir(b"/")) == [name]


def test_reading_and_its_end(client: RawClient, root: Path) -> None:
    (root / "a").write_bytes(b"0123456789")
    handle = client.open(b"/a")
    assert client.read(handle, 0, 4) == b"0123" and client.read(handle, 8, 400) == b"89"
    with pytest.raises(Failed) as caught:
        client.read(handle, 10, 1)
    assert (caught.value.code, caught.value.errno) == (1, 0)
    assert client.read(handle, 10, 0) == b""
    fails(22, client.read, handle, 1 << 63, 1)
    assert fails(9, client.write, handle, 0, b"x").code == 4
    client.close(handle)
    fails(9, client.read, handle, 0, 1)
    fails(9, client.close, handle)
    fails(9, client.read, b"nonsense", 0, 1)


def test_a_read_is_never_longer_than_a_packet(client: RawClient, root: Path) -> None:
    (root / "a").write_bytes(b"")
    os.truncate(root / "a", 1 << 20)
    assert len(client.read(client.open(b"/a"), 0, 0xFFFFFFFF)) == 262_144


def test_writing(client: RawClient, root: Path) -> None:
    handle = client.open(b"/a", W | CREAT, attrs(mode=0o600))
    client.write(handle, 5, b"world")
    client.write(handle, 0, b"hello")
    client.write(handle, 5 << 30, b"far")
    fails(27, client.write, handle, (1 << 63) - 1, b"x")
    fails(9, client.read, handle, 0, 1)
    assert client.fstat(handle).size == (5 << 30) + 3
    with (root / "a").open("rb") as file:
        assert file.read(10) == b"helloworld"
    assert (root / "a").stat().st_blocks * 512 < 1 << 20  # sparse
    assert (root / "a").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("pflags", [APPEND | W, APPEND | R | W, APPEND])
def test_appending_is_at_the_end_whatever_the_offset(client: RawClient, root: Path, pflags: int) -> None:
    (root / "a").write_bytes(b"one")
    handle = client.open(b"/a", pflags)
    client.write(handle, 0, b"two")
    with (root / "a").open("ab") as file:
        file.write(b"three")
    client.write(handle, 1 << 40, b"four")
    assert (root / "a").read_bytes() == b"onetwothreefour"


def test_opening(client: RawClient, root: Path) -> None:
    (root / "a").write_bytes(b"old")
    (root / "link").symlink_to("a")
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    fails(17, client.open, b"/a", W | CREAT | EXCL)
    fails(40, client.open, b"/link")
    fails(21, client.open, b"/folder")
    fails(6, client.open, b"/pipe")
    fails(22, client.open, b"/a", 0)
    fails(2, client.open, b"/none")
    client.write(client.open(b"/a", W | TRUNC), 0, b"n")
    assert (root / "a").read_bytes() == b"n"
    client.write(client.open(b"/s", W | CREAT | 0x20000000 | 0x40000000), 0, b"n")


class AnyFile(PlainTree):
    """A tree that opens whatever there is, as none should."""

    def open(self, path: bytes, flags: int, mode: int):
        from tests.sftptree import PlainFile

        return PlainFile(os.open(self.place(path), flags | os.O_NONBLOCK), path)


def test_what_is_no_regular_file_is_never_kept_open(root: Path) -> None:
    os.mkfifo(root / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    with served(AnyFile(root)) as (stream, _):
        client = RawClient(stream)
        client.init()
        fails(errno.EACCES, client.open, b"/pipe")
        fails(errno.EACCES, client.open_whole, b"/pipe")
    assert len(os.listdir("/proc/self/fd")) <= before


def test_whole_files(client: RawClient, root: Path) -> None:
    (root / "a").write_bytes(b"0123456789")
    (root / "empty").touch()
    opened = client.open_whole(b"/a", most=10)
    assert opened.data == b"0123456789" and opened.shown.size == 10
    assert client.read(opened.handle, 0, 4) == b"0123"
    assert client.open_whole(b"/empty", most=0).data == b""
    assert client.open_whole(b"/a", most=9).data is None
    assert client.open_whole(b"/a", R | W).data is None
    assert client.open_whole(b"/a", W).data is None
    made = client.open_whole(b"/new", R | W | CREAT | EXCL, change=attrs(mode=0o711))
    assert made.data is None and made.shown.mode == modes.S_IFREG | 0o711
    os.truncate(root / "a", 1 << 20)
    assert client.open_whole(b"/a", most=0xFFFFFFFF).data is None  # longer than a packet


class Moving(PlainTree):
    """Somebody writes to each file between the two looks at it."""

    looks = 0

    def fstat(self, file) -> Stat:
        self.looks += 1
        if self.looks % 2 == 0:
            (Path(os.fsdecode(self.place(file.path)))).write_bytes(b"X" * 10)
        return super().fstat(file)


def test_a_file_that_changes_meanwhile_is_not_whole(root: Path) -> None:
    (root / "a").write_bytes(b"0123456789")
    os.utime(root / "a", (1, 1))
    with served(Moving(root)) as (stream, _):
        client = RawClient(stream)
        client.init()
        opened = client.open_whole(b"/a")
    assert opened.data is None and opened.shown.size == 10


def test_listing(client: RawClient, root: Path) -> None:
    wanted = {b"name%d" % number for number in range(3000)}
    for name in wanted:
        (root / os.fsdecode(name)).touch()
    (root / "name7").write_bytes(b"seven")
    for most in (0, 2000, 1 << 17, 0xFFFFFFFF):
        found = client.list(b"/", most) if most else {}
        assert not most or set(found) == wanted
        assert not most or found[b"name7"].size == 5
    assert set(client.readdir(b"/")) == wanted
    (root / "none").mkdir()
    assert client.list(b"/none") == {} == client.readdir(b"/none")
    fails(20, client.list, b"/name1")
    fails(2, client.list, b"/away")
    fails(2, client.readdir, b"/away")


def test_a_page_has_one_name_at_least(client: RawClient, root: Path) -> None:
    for name in "abc":
        (root / name).touch()
    assert set(client.list(b"/", most=1)) == {b"a", b"b", b"c"}


def test_changes(client: RawClient, root: Path) -> None:
    (root / "a").write_bytes(b"0123456789")
    client.ok(client.request(sftp.SETSTAT, s(b"/a") + attrs(size=4, mode=0o604, times=(5, 6))))
    found = (root / "a").stat()
    assert (found.st_size, found.st_mode & 0o777, found.st_atime, found.st_mtime) == (4, 0o604, 5, 6)
    client.ok(client.extended(b"lsetstat@openssh.com", s(b"/a") + attrs(fine=(1, 2, -3, 999_999_999))))
    assert ((root / "a").stat().st_atime_ns, (root / "a").stat().st_mtime_ns) == (1_000_000_002, -2_000_000_001)
    handle = client.open(b"/a", W)
    before = time.time()
    client.ok(client.request(sftp.FSETSTAT, s(handle) + attrs(fine=(0, 0x3FFFFFFE, 0, 0x3FFFFFFF), size=2)))
    found = (root / "a").stat()
    assert found.st_size == 2 and found.st_atime_ns == 1_000_000_002 and found.st_mtime > before - 1
    assert client.status(client.request(sftp.FSETSTAT, s(handle) + attrs(fine=(0, 10**9, 0, 0)))).errno == 22
    assert client.status(client.request(sftp.FSETSTAT, s(handle) + attrs(size=1 << 63))).errno == 27
    assert client.status(client.request(sftp.FSETSTAT, s(client.open(b"/a")) + attrs(size=0))).errno == 22
    assert (root / "a").stat().st_size == 2


def test_links(client: RawClient, root: Path) -> None:
    (root / "a").write_bytes(b"x")
    client.ok(client.request(sftp.SYMLINK, s(b"any/\xff thing") + s(b"/link")))
    assert os.readlink(os.fsencode(root / "link")) == b"any/\xff thing"
    assert client.name(client.request(sftp.READLINK, s(b"/link"))) == b"any/\xff thing"
    assert modes.S_ISLNK(client.lstat(b"/link").mode)
    fails(2, client.lstat, b"/link", sftp.STAT)
    client.ok(client.extended(b"hardlink@openssh.com", s(b"/a") + s(b"/b")))
    assert client.lstat(b"/b").nlink == 2
    for target, number in ((b"", 2), (b"a\0", 22), (b"x" * 4096, 36)):
        assert client.status(client.request(sftp.SYMLINK, s(target) + s(b"/other"))).errno == number


def test_renaming(client: RawClient, root: Path) -> None:
    (root / "a").write_bytes(b"a")
    (root / "b").write_bytes(b"b")
    assert client.status(client.request(sftp.RENAME, s(b"/a") + s(b"/b"))).errno == 17
    assert (root / "b").read_bytes() == b"b"
    client.ok(client.extended(b"posix-rename@openssh.com", s(b"/a") + s(b"/b")))
    assert (root / "b").read_bytes() == b"a" and not (root / "a").exists()
    client.ok(client.request(sftp.RENAME, s(b"/b") + s(b"/c")))
    client.ok(client.request(sftp.REMOVE, s(b"/c")))
    client.ok(client.request(sftp.MKDIR, s(b"/d") + attrs(mode=0o700)))
    assert (root / "d").stat().st_mode & 0o777 == 0o700
    client.ok(client.request(sftp.RMDIR, s(b"/d")))
    assert os.listdir(root) == []


def test_unlinked_files_stay_open(client: RawClient, root: Path) -> None:
    (root / "a").write_bytes(b"still")
    handle = client.open(b"/a", R | W)
    client.ok(client.request(sftp.REMOVE, s(b"/a")))
    client.write(handle, 5, b" here")
    assert client.read(handle, 0, 100) == b"still here" and client.fstat(handle).nlink == 0


def test_space(client: RawClient, root: Path) -> None:
    found = os.statvfs(root)
    handle = client.open(b"/a", W | CREAT)
    for answer in (client.extended(b"statvfs@openssh.com", s(b"/")), client.extended(b"fstatvfs@openssh.com", s(handle))):
        values = client.expect(sftp.REPLY, answer).take("11Q")
        assert values[:3] == (found.f_bsize, found.f_frsize, found.f_blocks) and values[10] == found.f_namemax
    client.ok(client.extended(b"fsync@openssh.com", s(handle)))
    assert client.status(client.extended(b"fsync@openssh.com", s(b"none"))).errno == 9


def test_fallocate(client: RawClient, root: Path) -> None:
    handle = client.open(b"/a", W | CREAT)

    def call(mode: int, offset: int, length: int, key: bytes = handle) -> int:
        return client.status(client.extended(b"fallocate@wherry", s(key) + u32(mode) + u64(offset) + u64(length))).errno

    if call(0, 0, 100_000) == 95:
        pytest.skip("this file system has no fallocate")
    assert (root / "a").stat().st_size == 100_000
    assert call(1, 0, 200_000) == 0 and (root / "a").stat().st_size == 100_000
    assert call(0, 0, 0) == 22 and call(0, 1 << 63, 1) == 22 and call(1 << 31, 0, 1) == 22
    assert call(0, 0, 1, client.open(b"/a")) == 9


def test_ping(client: RawClient) -> None:
    assert client.status(client.extended(b"ping@wherry")).code == 0


def test_4096_open_and_no_more(client: RawClient, root: Path) -> None:
    import resource

    (root / "a").touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8192:
        pytest.skip("this process may not have so much open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, hard))
    try:
        before = len(os.listdir("/proc/self/fd"))
        handles = [client.open(b"/a") for _ in range(4096)]
        fails(24, client.open, b"/a")
        fails(24, client.open, b"/new", W | CREAT)
        fails(24, client.open_whole, b"/a")
        assert not (root / "new").exists() and len(os.listdir("/proc/self/fd")) <= before + 4096
        client.close(handles.pop())
        client.open(b"/a")
        client.stream.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_is_open_is_closed_at_the_end(root: Path) -> None:
    (root / "a").touch()
    for name in range(300):
        (root / f"n{name}").touch()
    before = len(os.listdir("/proc/self/fd"))
    with served(PlainTree(root)) as (stream, _):
        client = RawClient(stream)
        client.init()
        for _ in range(20):
            client.open(b"/a")
            client.expect(sftp.REPLY, client.extended(b"list@wherry", s(b"/") + s(b"") + u32(100)))
            handle = client.expect(sftp.HANDLE, client.request(sftp.OPENDIR, s(b"/"))).string()
            client.request(sftp.READDIR, s(handle))
    assert len(os.listdir("/proc/self/fd")) <= before


def test_extended_pairs_of_others_are_skipped(client: RawClient, root: Path) -> None:
    (root / "a").touch()
    change = struct.pack(">II", 0x80000000 | 4, 0o640) + u32(2) + s(b"x@y") + s(b"z") + s(b"time@wherry") + s(b"\0" * 24)
    client.ok(client.request(sftp.SETSTAT, s(b"/a") + change))
    assert (root / "a").stat().st_mode & 0o777 == 0o640 and (root / "a").stat().st_mtime_ns == 0


def test_readdir_has_lines_for_people(plain: RawClient, root: Path) -> None:
    (root / "a").write_bytes(b"12345")
    handle = plain.expect(sftp.HANDLE, plain.request(sftp.OPENDIR, s(b"/"))).string()
    fields: Fields = plain.expect(sftp.NAME, plain.request(sftp.READDIR, s(handle)))
    assert fields.take("I") == 1 and fields.string() == b"a"
    line = fields.string()
    assert line.startswith(b"-rw") and line.endswith(b" a") and b" 5 " in line
