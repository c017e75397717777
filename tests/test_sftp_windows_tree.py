"""The tree of a share on Windows; test_sftp_windows.py runs this under a Windows Python elsewhere."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import host
from tests.loopback import until

ON_WINDOWS = host.current().NAME == "windows"
UNDER_WINE = "WINEPREFIX" in os.environ
pytestmark = pytest.mark.skipif(not ON_WINDOWS, reason="not Windows")

if ON_WINDOWS:
    from launcher.host.ntfiles import DELETE, NtFiles
    from launcher.sftp.owners import Owners
    from launcher.sftp.policy import Policy
    from launcher.sftp.remembered import Nothing
    from launcher.sftp.stat import Change
    from launcher.sftp.windows_tree import WindowsTree


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "Home"
    made.mkdir()
    return made


@pytest.fixture
def share(home: Path, tmp_path: Path) -> Iterator[Callable[..., WindowsTree]]:
    trees: list[WindowsTree] = []

    def make(*, owners: Any = None, **rules: Any) -> WindowsTree:
        trees.append(WindowsTree(home, Policy(home, **rules), owners or Nothing()))
        return trees[-1]

    yield make
    for tree in trees:
        tree.close()


@pytest.fixture
def tree(share: Callable[..., WindowsTree]) -> WindowsTree:
    return share()


class Raises:
    """The errno that something fails with."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        assert isinstance(error, OSError), f"{error!r}, expected {self.numbers}"
        assert error.errno in self.numbers, error
        return True


def write(tree: WindowsTree, path: bytes, data: bytes, flags: int = os.O_CREAT | os.O_TRUNC, mode: int = 0o755) -> None:
    file = tree.open(path, os.O_WRONLY | flags, mode)
    try:
        assert os.write(file.fd, data) == len(data)
    finally:
        file.close()


def read(tree: WindowsTree, path: bytes) -> bytes:
    file = tree.open(path, os.O_RDONLY, 0)
    try:
        return os.read(file.fd, 1 << 20)
    finally:
        file.close()


def read_at(file: Any, count: int, offset: int) -> bytes:
    os.lseek(file.fd, offset, os.SEEK_SET)
    return os.read(file.fd, count)


def write_at(file: Any, data: bytes, offset: int) -> None:
    os.lseek(file.fd, offset, os.SEEK_SET)
    assert os.write(file.fd, data) == len(data)


def names(tree: WindowsTree, path: bytes) -> list[bytes]:
    return sorted(name for name, _ in tree.listdir(path))


def test_files_are_made_written_read_and_listed(tree: WindowsTree, home: Path) -> None:
    tree.mkdir(b"/src", 0o755)
    write(tree, b"/src/main.c", b"int main;")
    assert read(tree, b"/src/main.c") == b"int main;"
    assert (home / "src" / "main.c").read_bytes() == b"int main;"
    assert names(tree, b"/") == [b"src"]
    found = tree.lstat(b"/src/main.c")
    assert found.mode == stat.S_IFREG | 0o755 and found.size == 9 and found.nlink == 1
    host_stat = (home / "src" / "main.c").stat()
    assert (found.ino, found.dev) == (host_stat.st_ino, host_stat.st_dev), "identities are those of os.stat: the policy's"
    assert found.mtime_ns // 100 == host_stat.st_mtime_ns // 100
    assert dict(tree.listdir(b"/src"))[b"main.c"]._replace(atime_ns=0, ctime_ns=0) == found._replace(atime_ns=0, ctime_ns=0)
    assert tree.lstat(b"/").mode == tree.lstat(b"/src").mode == stat.S_IFDIR | 0o755
    with Raises(errno.EEXIST):
        write(tree, b"/src/main.c", b"", os.O_CREAT | os.O_EXCL)
    with Raises(errno.EISDIR):
        tree.open(b"/src", os.O_RDONLY, 0)
    with Raises(errno.ENOTDIR):
        tree.lstat(b"/src/main.c/x")
    with Raises(errno.ENOTDIR):
        tree.listdir(b"/src/main.c")
    with Raises(errno.ENOENT):
        tree.lstat(b"/none/x")


def test_append_truncate_and_holes(tree: WindowsTree, home: Path) -> None:
    first = tree.open(b"/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    second = tree.open(b"/log", os.O_WRONLY | os.O_APPEND, 0)
    write_at(first, b"one\n", 0)
    write_at(second, b"two\n", 0)
    write_at(first, b"three\n", 0)
    os.fsync(first.fd)
    first.close()
    first.close()
    second.close()
    assert read(tree, b"/log") == b"one\ntwo\nthree\n"
    file = tree.open(b"/log", os.O_RDWR | os.O_APPEND, 0)
    tree.fchange(file, Change(size=4))
    write_at(file, b"more", 0)
    assert read_at(file, 20, 0) == b"one\nmore"
    file.close()
    tree.change(b"/log", Change(size=3), follow=False)
    assert read(tree, b"/log") == b"one"
    file = tree.open(b"/big", os.O_RDWR | os.O_CREAT, 0o644)
    file.before_write(5 << 30)
    write_at(file, b"end", 5 << 30)
    assert tree.fstat(file).size == (5 << 30) + 3
    assert read_at(file, 10, 5 << 30) == b"end" and read_at(file, 4, 1 << 30) == b"\0\0\0\0"
    assert read_at(file, 10, 6 << 30) == b""
    tree.fchange(file, Change(size=1))
    assert tree.fstat(file).size == 1
    file.close()


def test_names_that_windows_cannot_have(tree: WindowsTree, home: Path) -> None:
    (home / "a").write_bytes(b"content")
    for name in (
        b"a:b",
        b"a::$DATA",
        b"x?",
        b"x*",
        b"<",
        b'"',
        b"a|b",
        b"back\\slash",
        b"dot.",
        b"blank ",
        b"\x01",
        b"\xff",
        b"...",
    ):
        with Raises(errno.ENOENT):
            tree.lstat(b"/" + name)
        with Raises(errno.EINVAL):
            write(tree, b"/" + name, b"x")
        with Raises(errno.EINVAL):
            tree.mkdir(b"/" + name, 0o755)
        with Raises(errno.EINVAL):
            tree.rename(b"/a", b"/" + name, True)
        with Raises(errno.EINVAL):
            tree.link(b"/a", b"/" + name)
    for name in (b"nul", b"CON", b"aux.c", b"com1.txt", b"LPT9"):
        with Raises(errno.EINVAL):
            write(tree, b"/" + name, b"x")
    assert names(tree, b"/") == [b"a"]
    for path in (b"/../x", b"/a/../../x", b"relative", b"/nul\0"):
        with Raises(errno.EINVAL):
            tree.lstat(path)


def test_names_of_all_kinds(tree: WindowsTree, home: Path) -> None:
    odd = ["é", "日本", "e\u0301", "x" * 255, ".hidden", " blank", "a.b.c", "\U0001f600", "half\ud83d"]
    depth = 60
    if UNDER_WINE:  # it keeps names as the Unix below it does, and has no final path of more than 260 units
        odd, depth = odd[:3] + odd[4:-1], 20
    spelled = [name.encode("utf-8", "surrogatepass") for name in odd]
    for name in spelled:
        write(tree, b"/" + name, b"x")
    assert names(tree, b"/") == sorted(spelled)
    assert sorted(os.listdir(home)) == sorted(odd)
    for name in spelled:
        tree.unlink(b"/" + name)
    for count in range(1, depth + 1):
        tree.mkdir(b"/deep" * count, 0o755)
    write(tree, b"/deep" * depth + b"/file", b"x")
    assert read(tree, b"/deep" * depth + b"/file") == b"x"
    with Raises(errno.ENAMETOOLONG):
        tree.lstat(b"/" + b"y" * 256)


def test_another_case_is_no_such_entry_and_a_clash(tree: WindowsTree, home: Path) -> None:
    (home / "README").write_bytes(b"precious")
    (home / "Dir").mkdir()
    (home / "Dir" / "f").write_bytes(b"x")
    (home / "other").write_bytes(b"other")
    for path in (b"/readme", b"/dir", b"/dir/f", b"/Dir/F"):
        with Raises(errno.ENOENT):
            tree.lstat(path)
    with Raises(errno.ENOENT):
        tree.open(b"/readme", os.O_RDONLY, 0)
    with Raises(errno.ENOENT):
        tree.unlink(b"/readme")
    with Raises(errno.EEXIST):
        write(tree, b"/readme", b"lost")
    with Raises(errno.EEXIST):
        tree.mkdir(b"/dir", 0o755)
    with Raises(errno.EEXIST):
        tree.rename(b"/other", b"/Readme", True)
    with Raises(errno.EEXIST):
        tree.link(b"/other", b"/Readme")
    assert (home / "README").read_bytes() == b"precious" and (home / "other").read_bytes() == b"other"
    # Its own name in another case is no clash. Wine says it is done, and leaves the name.
    tree.rename(b"/README", b"/ReadMe", False)
    assert [name for name in os.listdir(home) if name.lower() == "readme"] in (["ReadMe"], ["README"])


def test_rename(tree: WindowsTree, home: Path) -> None:
    (home / "a").write_bytes(b"a")
    (home / "b").write_bytes(b"b")
    with Raises(errno.EEXIST):
        tree.rename(b"/a", b"/b", False)
    reader = tree.open(b"/b", os.O_RDONLY, 0)
    try:
        tree.rename(b"/a", b"/b", True)
    except OSError as error:  # without POSIX semantics, an open file stays
        assert error.errno == errno.EACCES
        reader.close()
        tree.rename(b"/a", b"/b", True)
    else:
        assert read_at(reader, 10, 0) == b"b"
        reader.close()
    assert read(tree, b"/b") == b"a" and names(tree, b"/") == [b"b"]
    tree.mkdir(b"/d", 0o755)
    tree.mkdir(b"/e", 0o755)
    write(tree, b"/e/x", b"x")
    with Raises(errno.EISDIR):
        tree.rename(b"/b", b"/d", True)
    with Raises(errno.ENOTDIR):
        tree.rename(b"/d", b"/b", True)
    with Raises(errno.ENOTEMPTY):
        tree.rename(b"/d", b"/e", True)
    tree.rename(b"/e", b"/d", True)
    assert names(tree, b"/d") == [b"x"] and names(tree, b"/") == [b"b", b"d"]
    tree.rename(b"/b", b"/d/moved", False)
    assert names(tree, b"/d") == [b"moved", b"x"]
    with Raises(errno.ENOENT):
        tree.rename(b"/none", b"/x", True)


def test_hard_links(tree: WindowsTree, home: Path) -> None:
    write(tree, b"/a", b"one")
    tree.link(b"/a", b"/b")
    assert tree.lstat(b"/a").ino == tree.lstat(b"/b").ino and tree.lstat(b"/b").nlink == 2
    write(tree, b"/b", b"two!", 0)
    assert read(tree, b"/a") == b"two!"
    with Raises(errno.EEXIST):
        tree.link(b"/a", b"/b")
    tree.rename(b"/a", b"/b", True)  # two names of one file
    assert names(tree, b"/") == [b"a", b"b"]
    tree.unlink(b"/a")
    assert tree.lstat(b"/b").nlink == 1
    tree.mkdir(b"/d", 0o755)
    with Raises(errno.EPERM):
        tree.link(b"/d", b"/e")


def test_what_is_gone(tree: WindowsTree, home: Path) -> None:
    tree.mkdir(b"/d", 0o755)
    write(tree, b"/d/f", b"x")
    with Raises(errno.ENOTEMPTY):
        tree.rmdir(b"/d")
    with Raises(errno.EISDIR):
        tree.unlink(b"/d")
    with Raises(errno.ENOTDIR):
        tree.rmdir(b"/d/f")
    (home / "d" / "f").chmod(stat.S_IREAD)  # as git's objects are
    tree.unlink(b"/d/f")
    tree.rmdir(b"/d")
    assert names(tree, b"/") == []


def test_an_open_file_can_be_removed(tree: WindowsTree, home: Path) -> None:
    write(tree, b"/f", b"content")
    file = tree.open(b"/f", os.O_RDWR, 0)
    tree.unlink(b"/f")
    assert read_at(file, 10, 0) == b"content"
    posix = not (home / "f").exists()
    file.close()
    assert not (home / "f").exists()
    if not posix:
        pytest.skip("this file system takes the name away at the last close")


def test_another_program_that_has_it_for_itself_makes_it_busy(tree: WindowsTree, home: Path) -> None:
    import ctypes

    (home / "f").write_bytes(b"x")
    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]
    kernel.CreateFileW.restype = ctypes.c_void_p
    handle = kernel.CreateFileW(str(home / "f"), 0x80000000, 0, None, 3, 0, None)
    try:
        with Raises(errno.EBUSY):
            tree.open(b"/f", os.O_RDONLY, 0)
        with Raises(errno.EBUSY):
            tree.unlink(b"/f")
        assert tree.lstat(b"/f").size == 1
    finally:
        kernel.CloseHandle(ctypes.c_void_p(handle))
    assert read(tree, b"/f") == b"x"


def test_times(tree: WindowsTree, home: Path) -> None:
    write(tree, b"/f", b"x")
    when = 1_600_000_000_123_456_700
    tree.change(b"/f", Change(mtime_ns=when, atime_ns=when + 100), follow=False)
    found = tree.lstat(b"/f")
    assert (found.mtime_ns, found.atime_ns) == (when, when + 100)
    tree.change(b"/f", Change(mtime_ns=-1), follow=False)
    assert tree.lstat(b"/f").mtime_ns > when and tree.lstat(b"/f").atime_ns == when + 100
    # tar and cp -p: written by one handle, stamped by path, closed after it.
    file = tree.open(b"/f", os.O_WRONLY, 0)
    write_at(file, b"yy", 0)
    tree.change(b"/f", Change(mtime_ns=when), follow=False)
    file.close()
    assert tree.lstat(b"/f").mtime_ns == when
    tree.change(b"/f", Change(mtime_ns=-5_000_000_000), follow=False)
    assert tree.lstat(b"/f").mtime_ns == -5_000_000_000


def test_owners_and_modes_are_remembered(share: Callable[..., WindowsTree], home: Path, tmp_path: Path) -> None:
    owners = Owners(tmp_path / "owners", home.stat().st_dev)
    try:
        tree = share(owners=owners)
        (home / "gradlew").write_bytes(b"#!/bin/sh")
        assert tree.lstat(b"/gradlew").mode == stat.S_IFREG | 0o755
        assert owners.empty
        tree.mkdir(b"/pgdata", 0o755)
        assert owners.empty, "what is shown anyhow needs no memory"
        tree.change(b"/pgdata", Change(uid=999, gid=998), follow=False)
        tree.change(b"/pgdata", Change(mode=0o700), follow=False)
        found = tree.lstat(b"/pgdata")
        assert (found.uid, found.gid, found.mode) == (999, 998, stat.S_IFDIR | 0o700)
        write(tree, b"/pgdata/PG_VERSION", b"15", mode=0o600)
        found = tree.lstat(b"/pgdata/PG_VERSION")
        assert (found.uid, found.gid, found.mode) == (999, 998, stat.S_IFREG | 0o600), "the folder's owner, and its own mode"
        assert dict(tree.listdir(b"/pgdata"))[b"PG_VERSION"].mode == stat.S_IFREG | 0o600
        file = tree.open(b"/pgdata/PG_VERSION", os.O_RDWR, 0)
        tree.fchange(file, Change(mode=0o644, uid=5))
        found = tree.fstat(file)
        file.close()
        assert (found.uid, found.gid, found.mode) == (5, 998, stat.S_IFREG | 0o644)
        tree.rename(b"/pgdata", b"/moved", False)
        assert tree.lstat(b"/moved/PG_VERSION").uid == 5
        tree.unlink(b"/moved/PG_VERSION")
        assert owners.count == 1
        tree.rmdir(b"/moved")
        assert owners.empty
    finally:
        owners.close()


def test_hidden_and_guarded_places(share: Callable[..., WindowsTree], home: Path) -> None:
    for folder in (".ssh", "AppData/Startup", "code", "conf/.aws"):
        (home / folder).mkdir(parents=True)
        (home / folder / "f").write_bytes(b"secret")
    tree = share(hidden=[".ssh", "conf/.aws"], protected=["AppData/Startup", ".bashrc"])
    for path in (b"/.ssh", b"/.ssh/f", b"/.SSH/f", b"/.Ssh", b"/conf/.aws/f", b"/conf/.AWS"):
        with Raises(errno.ENOENT):
            tree.lstat(path)
    assert b".ssh" not in names(tree, b"/") and names(tree, b"/conf") == []
    with Raises(errno.ENOENT):
        tree.listdir(b"/.ssh")
    with Raises(errno.ENOENT):
        tree.open(b"/.ssh/f", os.O_RDONLY, 0)
    for make in (
        lambda: tree.mkdir(b"/.ssh", 0o755),
        lambda: write(tree, b"/.SSH", b"x"),
        lambda: tree.link(b"/code/f", b"/.ssh"),
    ):
        with Raises(errno.EACCES, errno.EEXIST):
            make()
    with Raises(errno.EBUSY):
        tree.rename(b"/conf", b"/other", False)
    with Raises(errno.EBUSY, errno.ENOTEMPTY):
        tree.rmdir(b"/conf")
    assert read(tree, b"/AppData/Startup/f") == b"secret"
    for change in (
        lambda: write(tree, b"/AppData/Startup/evil.bat", b"x"),
        lambda: write(tree, b"/AppData/Startup/f", b"x"),
        lambda: tree.unlink(b"/AppData/Startup/f"),
        lambda: tree.rename(b"/code/f", b"/AppData/Startup/f", True),
        lambda: tree.change(b"/AppData/Startup/f", Change(size=0), follow=False),
        lambda: tree.change(b"/AppData/Startup/f", Change(mtime_ns=-1), follow=False),
        lambda: write(tree, b"/.bashrc", b"evil"),
        lambda: write(tree, b"/.BASHRC", b"evil"),
        lambda: tree.link(b"/AppData/Startup/f", b"/code/g"),
        lambda: tree.mkdir(b"/AppData/Startup/d", 0o755),
    ):
        with Raises(errno.EACCES):
            change()
    assert (home / "AppData" / "Startup" / "f").read_bytes() == b"secret"
    # What the host moves away stays hidden, by its identity.
    (home / ".ssh").rename(home / "code" / "keys")
    with Raises(errno.ENOENT):
        tree.lstat(b"/code/keys/f")


def test_a_share_that_is_read_only(share: Callable[..., WindowsTree], home: Path) -> None:
    (home / "f").write_bytes(b"x")
    tree = share(read_only=True)
    assert read(tree, b"/f") == b"x"
    for change in (
        lambda: write(tree, b"/f", b"y"),
        lambda: write(tree, b"/g", b"y"),
        lambda: tree.unlink(b"/f"),
        lambda: tree.mkdir(b"/d", 0o755),
        lambda: tree.rename(b"/f", b"/g", True),
        lambda: tree.link(b"/f", b"/g"),
        lambda: tree.symlink(b"f", b"/g"),
        lambda: tree.change(b"/f", Change(mode=0o600), follow=False),
    ):
        with Raises(errno.EROFS):
            change()
    assert os.listdir(home) == ["f"]


def test_symbolic_links(tree: WindowsTree, home: Path) -> None:
    write(tree, b"/file", b"x")
    for target in (b"/etc/passwd", b"/file"):
        with Raises(errno.EPERM):
            tree.symlink(target, b"/absolute")
    with Raises(errno.EINVAL):
        tree.symlink(b"a:b", b"/odd")
    try:
        tree.symlink(b"file", b"/link")
    except OSError as error:
        # Without the privilege, and where there are none: nothing is there, above all no copy.
        assert error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOENT)
        assert names(tree, b"/") == [b"file"]
        pytest.skip("no links without a privilege")
    assert tree.readlink(b"/link") == b"file"
    assert stat.S_ISLNK(tree.lstat(b"/link").mode) and tree.lstat(b"/link").size == 4
    assert tree.stat(b"/link") == tree.lstat(b"/file")
    with Raises(errno.ELOOP):
        tree.open(b"/link", os.O_RDONLY, 0)


def test_a_junction_is_a_link_that_is_never_followed(tree: WindowsTree, home: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (home / "in").mkdir()
    for name, target in (("out", outside), ("within", home / "in")):
        done = subprocess.run(["cmd", "/c", "mklink", "/J", str(home / name), str(target)], capture_output=True, check=False)
        if done.returncode or not (home / name).exists():
            pytest.skip("no junctions here")
    if not stat.S_ISLNK(tree.lstat(b"/out").mode):
        pytest.skip("junctions here are no reparse points")
    for path in (b"/out/secret", b"/within/x"):
        with Raises(errno.ELOOP, errno.ENOTDIR):
            tree.lstat(path)
        with Raises(errno.ELOOP, errno.ENOTDIR):
            write(tree, path, b"x")
    with Raises(errno.ENOTDIR):
        tree.listdir(b"/out")
    assert tree.readlink(b"/within") == b"in"
    assert tree.readlink(b"/out").startswith(b"/c/")
    with Raises(errno.EXDEV):
        tree.stat(b"/out")
    tree.unlink(b"/out")
    assert (outside / "secret").exists()


def test_a_link_on_the_way_out_of_the_share(tree: WindowsTree, home: Path, tmp_path: Path) -> None:
    """Under Wine a Unix link stands for what a junction is: the kernel follows it, and the final path tells."""
    if not UNDER_WINE:
        pytest.skip("junctions are tested")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    unix = subprocess.run(["winepath", "-u", str(home)], capture_output=True, text=True, check=False).stdout.strip()
    assert unix
    made = subprocess.run(["start", "/unix", "/bin/ln", "-s", "../outside", f"{unix}/out"], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no way to make a Unix link")
    until((home / "out").exists)  # `start` does not wait for a program of Unix
    with Raises(errno.ELOOP):
        tree.lstat(b"/out/secret")
    with Raises(errno.ELOOP):
        write(tree, b"/out/new", b"x")
    assert os.listdir(outside) == ["secret"]


SWAPPER = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), done.append(1)), daemon=True).start()
done = []
while not done:
    for source, target in (sys.argv[1:], sys.argv[:0:-1]):
        try:
            os.rename(source, target)
        except OSError:
            pass  # a handle stands in the way
"""


def test_folders_that_are_swapped_while_paths_are_opened(tree: WindowsTree, home: Path, tmp_path: Path) -> None:
    """A folder on the way is moved out of the share and back, again and again: nothing out there is read or made."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (home / "d").mkdir()
    (home / "d" / "f").write_bytes(b"inside")
    refused = (errno.ENOENT, errno.ELOOP, errno.EBUSY, errno.EACCES, errno.EEXIST, errno.ESTALE)
    swapper = subprocess.Popen([sys.executable, "-c", SWAPPER, str(home / "d"), str(outside / "d")], stdin=subprocess.PIPE)
    try:
        for count in range(300):
            try:
                assert read(tree, b"/d/f") == b"inside"
                write(tree, b"/d/%d" % (count % 7), b"x")
            except OSError as error:
                stale = getattr(error, "ntstatus", 0) == 0xC0000024  # what Wine says of a handle whose file it lost meanwhile
                assert stale or error.errno in refused, error
    finally:
        swapper.communicate()
    assert swapper.returncode == 0
    assert set(os.listdir(outside)) <= {"d"} and set(os.listdir(home)) <= {"d"}


def test_room(tree: WindowsTree) -> None:
    found = tree.statvfs(b"/")
    assert 0 < found.f_bavail <= found.f_blocks and found.f_namemax == 255


def test_listing_many_and_closing_early(tree: WindowsTree, home: Path) -> None:
    tree.mkdir(b"/many", 0o755)
    for number in range(1500):
        (home / "many" / f"a name that is not so short {number}").touch()
    listed = tree.listdir(b"/many")
    next(listed)
    listed.close()  # type: ignore[attr-defined]
    assert list(listed) == []
    assert len(names(tree, b"/many")) == 1500
    for name in os.listdir(home / "many"):
        tree.unlink(b"/many/" + name.encode())
    tree.rmdir(b"/many")


def test_no_handle_is_left(tree: WindowsTree, home: Path) -> None:
    """A folder with a handle in it could not be moved by the host."""
    (home / "d").mkdir()
    for _ in range(50):
        write(tree, b"/d/f", b"x")
        for act in (
            lambda: tree.lstat(b"/d/none"),
            lambda: tree.mkdir(b"/d/f", 0o755),
            lambda: tree.rmdir(b"/d"),
            lambda: list(tree.listdir(b"/d")),
        ):
            try:
                act()
            except OSError:
                pass
    files = NtFiles()
    handle, _ = files.open(tree._walk.root, "d".encode("utf-16-le"), DELETE, share=0)  # nobody else may have it open
    files.close(handle)
    (home / "d").rename(home / "e")
    assert read(tree, b"/e/f") == b"x"


def test_many_threads(tree: WindowsTree, home: Path) -> None:
    for number in range(4):
        tree.mkdir(b"/d%d" % number, 0o755)
        write(tree, b"/d%d/kept" % number, b"kept")
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for count in range(60):
                write(tree, b"/d%d/%d" % (number, count), b"x" * count)
                assert tree.lstat(b"/d%d/%d" % (number, count)).size == count
                assert read(tree, b"/d%d/kept" % (count % 4)) == b"kept"
                assert b"kept" in names(tree, b"/d%d" % (count % 4))
                tree.change(b"/d%d/%d" % (number, count), Change(mtime_ns=10**18), follow=False)
                tree.unlink(b"/d%d/%d" % (number, count))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert all(names(tree, b"/d%d" % number) == [b"kept"] for number in range(4))


def test_random_acts_are_as_a_model_says(tree: WindowsTree, home: Path) -> None:
    chance = random.Random(11)
    model: dict[bytes, bytes] = {}
    pool = [b"/f%d" % number for number in range(8)]
    for _ in range(400):
        one, other = chance.sample(pool, 2)
        act = chance.randrange(5)
        if act == 0:
            data = chance.randbytes(chance.randrange(5000))
            write(tree, one, data)
            model[one] = data
        elif act == 1 and one in model:
            tree.rename(one, other, True)
            model[other] = model.pop(one)
        elif act == 2 and one in model:
            tree.unlink(one)
            del model[one]
        elif act == 3 and one in model:
            size = chance.randrange(6000)
            tree.change(one, Change(size=size), follow=False)
            model[one] = model[one][:size].ljust(size, b"\0")
        elif one in model:
            assert read(tree, one) == model[one]
        else:
            with Raises(errno.ENOENT):
                read(tree, one)
    assert {b"/" + name: read(tree, b"/" + name) for name in names(tree, b"/")} == model
