"""The guest's file system for shares: what programs expect of files, by the compiler's checks of memory and of arithmetic."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from launcher.sftp.stat import Stat
from tests.sftptree import PlainTree

from .sharemount import CHECKED, Mount, mounted, share

__all__ = ["share"]


def test_what_is_written_is_there_on_both_sides(share: Mount) -> None:
    (share.path / "a").write_text("hallo")
    assert (share.host / "a").read_text() == "hallo" == (share.path / "a").read_text()
    (share.host / "b").write_text("welt")
    assert (share.path / "b").read_text() == "welt"
    assert sorted(os.listdir(share.path)) == ["a", "b"]


def test_a_rename_replaces_and_a_noreplace_does_not(share: Mount) -> None:
    (share.path / "new").write_text("new")
    (share.path / "old").write_text("old")
    # RENAME_NOREPLACE, then RENAME_EXCHANGE, which cannot be had.
    for flag, number in ((1, errno.EEXIST), (2, errno.EINVAL)):
        assert rename2(share.path / "new", share.path / "old", flag) == number
    os.rename(share.path / "new", share.path / "old")
    assert (share.path / "old").read_text() == "new"
    assert os.listdir(share.host) == ["old"]


def rename2(old: Path, new: Path, flags: int) -> int:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return 0 if libc.renameat2(-100, bytes(old), -100, bytes(new), flags) == 0 else ctypes.get_errno()


def test_an_open_file_that_was_removed_stays_usable(share: Mount) -> None:
    with (share.path / "f").open("w+") as file:
        os.unlink(share.path / "f")
        file.write("abc")
        file.flush()
        os.ftruncate(file.fileno(), 2)
        os.fchmod(file.fileno(), 0o600)
        file.seek(0)
        assert file.read() == "ab"
        found = os.fstat(file.fileno())
        assert (found.st_nlink, found.st_size, found.st_mode & 0o777) == (0, 2, 0o600)
    assert os.listdir(share.host) == []


def test_names_of_one_file_are_one_file(share: Mount) -> None:
    one, two = share.path / "one", share.path / "two"
    one.write_text("1")
    os.link(one, two)
    with two.open("a") as file:
        file.write("23")
    assert one.read_text() == "123"
    assert one.stat().st_nlink == 2 and one.stat().st_ino == two.stat().st_ino
    one.unlink()
    assert two.stat().st_nlink == 1 and two.read_text() == "123"
    # Also when the host has made the name.
    os.link(share.host / "two", share.host / "three")
    assert os.path.samefile(share.path / "three", two)


def test_times_to_the_nanosecond_modes_and_links(share: Mount) -> None:
    file = share.path / "f"
    file.write_text("x")
    os.utime(file, ns=(123456789_123456789, 987654321_987654321))
    found = file.stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (123456789_123456789, 987654321_987654321)
    file.chmod(0o751)
    assert (share.host / "f").stat().st_mode & 0o777 == 0o751
    os.symlink("f", share.path / "l")
    os.utime(share.path / "l", ns=(5, 6), follow_symlinks=False)
    assert (os.lstat(share.path / "l").st_mtime_ns, file.stat().st_mtime_ns) == (6, 987654321_987654321)
    assert os.readlink(share.path / "l") == "f" and (share.path / "l").read_text() == "x"
    # A link that the host makes anew, perhaps with the same inode number, is read anew.
    os.unlink(share.host / "l")
    os.symlink("other", share.host / "l")
    time.sleep(1)
    assert os.readlink(share.path / "l") == "other"


def test_two_append_to_one_file(share: Mount) -> None:
    file = share.path / "f"
    file.touch()
    ends = [os.open(file, os.O_WRONLY | os.O_APPEND) for _ in range(2)]
    threads = [threading.Thread(target=append, args=(end, letter)) for end, letter in zip(ends, b"ab", strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for end in ends:
        os.close(end)
    data = file.read_bytes()
    assert (data.count(b"a" * 10), len(data)) == (200, 4000)


def append(end: int, letter: int) -> None:
    for _ in range(200):
        os.write(end, bytes([letter]) * 10)


def test_flags_of_open(share: Mount) -> None:
    file = share.path / "f"
    file.write_text("12345")
    with pytest.raises(FileExistsError):
        os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    with pytest.raises(FileNotFoundError):
        os.open(share.path / "none", os.O_RDWR)
    with pytest.raises(PermissionError):
        os.mkfifo(share.path / "fifo")
    os.close(os.open(file, os.O_WRONLY | os.O_TRUNC))
    assert (share.host / "f").read_text() == "" and file.stat().st_size == 0
    os.truncate(file, 7)
    assert file.read_bytes() == bytes(7) == (share.host / "f").read_bytes()


# Of a process of their own: a fault of a page holds the interpreter, in which the server runs too.
MAPPING = """
import mmap, os, sys
end = os.open(sys.argv[1], os.O_RDWR | int(sys.argv[2]))
with mmap.mmap(end, 10_000) as data:
    os.close(end)
    data[5000:5005] = b"hello"
    data.flush()
    assert data[:] == open(sys.argv[1], "rb").read()
"""


@pytest.mark.parametrize("flag", [0, os.O_APPEND])
def test_shared_mappings_also_of_a_file_that_appends(share: Mount, flag: int) -> None:
    (share.path / "f").write_bytes(bytes(10_000))
    subprocess.run([sys.executable, "-c", MAPPING, share.path / "f", str(flag)], check=True, timeout=60)
    assert (share.host / "f").read_bytes() == bytes(5000) + b"hello" + bytes(4995)


def test_files_over_four_gigabytes_with_holes(share: Mount) -> None:
    with (share.path / "f").open("w+b") as file:
        file.seek(5 << 30)
        file.write(b"end")
        file.flush()
        assert os.fstat(file.fileno()).st_size == (5 << 30) + 3
        file.seek((5 << 30) - 2)
        assert file.read() == b"\0\0end"
    assert (share.path / "f").stat().st_blocks * 512 < 1 << 20


def test_names_of_any_bytes_and_their_limits(share: Mount) -> None:
    name = bytes(byte for byte in range(1, 256) if byte != ord("/"))
    place = os.fsencode(share.path) + b"/" + name
    os.mkdir(place)
    assert os.listdir(bytes(share.path)) == [name] == os.listdir(bytes(share.host))
    with pytest.raises(OSError, match="too long"):
        (share.path / ("n" * 256)).touch()
    deep = share.path.joinpath(*[f"deep{number:05}" for number in range(200)])
    deep.mkdir(parents=True)
    (deep / "f").write_text("deep")
    assert (deep / "f").read_text() == "deep"


def test_a_folder_of_a_thousand_files(share: Mount) -> None:
    names = [f"a name of some length {number}" for number in range(3000)]
    for name in names:
        (share.host / name).write_text(name)
    with os.scandir(share.path) as found:
        assert {entry.name: entry.stat().st_size for entry in found} == {name: len(name) for name in names}
    assert all((share.path / name).read_text() == name for name in names[::10])
    end = os.open(share.path, os.O_RDONLY)
    assert sorted(os.listdir(end)) == sorted(names) == sorted(os.listdir(end))
    os.close(end)
    subprocess.run(["rm", "-r", *(share.path / name for name in names)], check=True)
    assert os.listdir(share.host) == []


def test_a_folder_that_is_renamed_takes_what_is_in_it_along(share: Mount) -> None:
    (share.path / "a" / "b").mkdir(parents=True)
    with (share.path / "a" / "b" / "f").open("w") as file:
        os.rename(share.path / "a", share.path / "c")
        file.write("x")
        os.fchmod(file.fileno(), 0o600)
    assert (share.path / "c" / "b" / "f").read_text() == "x"
    assert not (share.path / "a").exists()
    with pytest.raises(OSError, match="not empty"):
        os.rmdir(share.path / "c")


def test_many_processes_at_once(share: Mount) -> None:
    script = """
    for i in $(seq 60); do
        echo "$1 $i" >"$1.$i" && mv "$1.$i" "$1.$i.moved" && read -r a b <"$1.$i.moved" && [ "$a $b" = "$1 $i" ] || exit 1
        [ $((i % 2)) = 0 ] || rm "$1.$i.moved" || exit 1
    done"""
    running = [subprocess.Popen(["sh", "-c", script, "sh", f"p{number}"], cwd=share.path) for number in range(6)]
    assert [process.wait(120) for process in running] == [0] * 6
    assert len(os.listdir(share.host)) == 6 * 30 == len(os.listdir(share.path))


def test_what_the_host_changes_is_seen_within_a_second(share: Mount) -> None:
    file = share.path / "f"
    (share.host / "f").write_text("one")
    assert file.read_text() == "one" and not (share.path / "g").exists()
    (share.host / "f").write_text("three")
    (share.host / "g").write_text("g")
    assert (share.path / "g").read_text() == "g"
    time.sleep(1)
    assert file.read_text() == "three"
    (share.host / "new").write_text("replaced")
    os.rename(share.host / "new", share.host / "f")
    time.sleep(1)
    assert file.read_text() == "replaced"
    os.unlink(share.host / "f")
    time.sleep(1)
    assert not file.exists()


def test_large_files_arrive_whole(share: Mount) -> None:
    data = random.Random(5).randbytes(24 << 20)
    (share.path / "f").write_bytes(data)
    assert hashlib.sha256((share.host / "f").read_bytes()).digest() == hashlib.sha256(data).digest()
    (share.host / "g").write_bytes(data)
    assert (share.path / "g").read_bytes() == data
    with (share.path / "g").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(9_999_999)
        assert file.read(5_000_000) == data[9_999_999:14_999_999]


def test_a_write_that_fails_is_told(share: Mount) -> None:
    # The host's limit for a file of this process, in which the server runs.
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    end = os.open(share.path / "f", os.O_WRONLY | os.O_CREAT)
    script = "dd if=/dev/zero of=f bs=64k count=32 conv=notrunc,fsync"
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        unlimited = ["prlimit", "--fsize=unlimited", "sh", "-c", script]
        done = subprocess.run(unlimited, cwd=share.path, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
        os.close(end)
    assert done.returncode != 0 and "File too large" in done.stderr


def test_a_read_only_share_and_aliases(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "f").write_text("x")
    with mounted(tmp_path, *CHECKED, mode="ro", aliases=2) as mount:
        for place in (mount.path, *mount.aliases):
            assert (place / "f").read_text() == "x"
            with pytest.raises(OSError, match="Read-only"):
                (place / "g").touch()


def test_what_the_kernel_has_forgotten_is_still_there(share: Mount) -> None:
    """A folder that is known to be complete is not, once the kernel lets go of names."""
    (share.path / "d").mkdir()
    for number in range(50):
        (share.path / "d" / str(number)).write_text("x")
    os.listdir(share.path / "d")
    Path("/proc/sys/vm/drop_caches").write_text("2")
    assert all((share.path / "d" / str(number)).exists() for number in range(50))
    os.rename(share.path / "d" / "1", share.path / "d" / "moved")
    assert (share.path / "d" / "moved").exists() and not (share.path / "d" / "1").exists()


def test_a_file_alone_that_is_bound_and_replaced(share: Mount, tmp_path: Path) -> None:
    """As -v FILE:FILE of a container: it shows what has the file's name."""
    bound = tmp_path / "bound"
    bound.touch()
    (share.host / "f").write_text("one")
    subprocess.run(["mount", "--bind", share.path / "f", bound], check=True)
    try:
        assert bound.read_text() == "one"
        for text in ("another", "a third"):
            (share.host / "new").write_text(text)
            os.rename(share.host / "new", share.host / "f")
            time.sleep(1)
            assert (share.path / "f").read_text() == text == bound.read_text()
            assert bound.stat().st_size == len(text)
        bound.write_text("written")
        assert (share.host / "f").read_text() == "written"
        os.unlink(share.host / "f")
        time.sleep(1)
        assert not (share.path / "f").exists() and bound.stat().st_nlink == 0
    finally:
        subprocess.run(["umount", "-l", bound], check=True)


def test_a_long_read_ahead(share: Mount) -> None:
    found = os.stat(share.path)
    bdi = Path(f"/sys/class/bdi/{os.major(found.st_dev)}:{os.minor(found.st_dev)}/read_ahead_kb")
    assert int(bdi.read_text()) == 2048


def test_many_looks_at_a_folder_are_few_questions(share: Mount) -> None:
    for number in range(300):
        (share.host / str(number)).write_text("x" * number)
    assert share.server is not None
    asked = share.server.stream.asked
    for _ in range(2):
        before = asked.total()
        assert [(share.path / str(number)).stat().st_size for number in range(300)] == list(range(300))
        assert not (share.path / "none").exists()
        assert asked.total() - before < 100
        (share.host / "7").write_text("")
        (share.host / "8").unlink()
        time.sleep(1)
        assert (share.path / "7").stat().st_size == 0 and not (share.path / "8").exists()
        (share.host / "7").write_text("x" * 7)
        (share.host / "8").write_text("x" * 8)
        time.sleep(1)


def test_a_folder_that_cannot_be_read_is_not_opened(share: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some programs take an error of the first READDIR for an empty folder."""
    listdir = PlainTree.listdir

    def closed(tree: PlainTree, path: bytes) -> Generator[tuple[bytes, Stat], None, None]:
        if path == b"/shut":
            raise PermissionError(errno.EACCES, "closed")
        yield from listdir(tree, path)

    monkeypatch.setattr(PlainTree, "listdir", closed)
    (share.host / "shut").mkdir()
    (share.host / "empty").mkdir()
    with pytest.raises(PermissionError):
        os.open(share.path / "shut", os.O_RDONLY | os.O_DIRECTORY)
    assert os.listdir(share.path / "empty") == []
    assert sorted(os.listdir(share.path)) == ["empty", "shut"]
