"""A share by descriptors: what the guest's file system asks for is done, and shown as the guest left it."""

from __future__ import annotations

import errno
import os
import random
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors of folders")
if sys.platform != "win32":
    from launcher.sftp.names import Folded
    from launcher.sftp.policy import Policy
    from launcher.sftp.remembered import Nothing, Owner
    from launcher.sftp.stat import NOW, Change
    from launcher.sftp.tree import Tree

GIB = 1 << 30


class Memory:
    """Owners in a dict."""

    def __init__(self) -> None:
        self.owners: dict[tuple[int, int], Owner] = {}

    @property
    def empty(self) -> bool:
        return not self.owners

    def of(self, st: os.stat_result, at: object = None) -> Owner | None:
        return self.owners.get((st.st_dev, st.st_ino))

    def remember(self, st: os.stat_result, owner: Owner, at: object = None) -> None:
        self.owners[st.st_dev, st.st_ino] = owner

    def forget(self, st: os.stat_result) -> None:
        self.owners.pop((st.st_dev, st.st_ino), None)


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "share"
    made.mkdir()
    return made


@pytest.fixture
def tree(root: Path, memory: Memory) -> Iterator[Tree]:
    before = len(os.listdir("/dev/fd"))
    made = Tree(root, Policy(root), memory)
    yield made
    made.close()
    assert len(os.listdir("/dev/fd")) <= before + 1  # a policy's descriptors may wait for the collector


def names(tree: Tree, path: bytes) -> list[bytes]:
    return sorted(name for name, _ in tree.listdir(path))


def put(tree: Tree, path: bytes, content: bytes, mode: int = 0o644) -> None:
    opened = tree.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(opened.fd, content)
    finally:
        opened.close()


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as raised:
        yield
    assert raised.value.errno == number, raised.value


def test_what_is_written_is_there(tree: Tree, root: Path) -> None:
    tree.mkdir(b"/a", 0o755)
    put(tree, b"/a/f", b"content", 0o640)
    assert (root / "a" / "f").read_bytes() == b"content"
    shown = tree.lstat(b"/a/f")
    assert (shown.size, stat.S_IMODE(shown.mode), shown.nlink) == (7, 0o640, 1)
    real = os.stat(root / "a" / "f")
    assert (shown.ino, shown.dev, shown.mtime_ns, shown.uid) == (real.st_ino, real.st_dev, real.st_mtime_ns, real.st_uid)
    assert names(tree, b"/") == [b"a"]
    assert names(tree, b"/a") == [b"f"]
    assert stat.S_ISDIR(tree.lstat(b"/").mode)
    tree.unlink(b"/a/f")
    tree.rmdir(b"/a")
    assert os.listdir(root) == []


def test_modes_are_as_asked_whatever_our_umask_is(tree: Tree, root: Path) -> None:
    before = os.umask(0o077)
    try:
        put(tree, b"/f", b"", 0o666)
        tree.mkdir(b"/d", 0o777)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(root / "f").st_mode) == 0o666
    assert stat.S_IMODE(os.stat(root / "d").st_mode) == 0o777


def test_flags_of_open(tree: Tree, root: Path) -> None:
    put(tree, b"/f", b"one")
    with refused(errno.EEXIST):
        tree.open(b"/f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with refused(errno.ENOENT):
        tree.open(b"/none", os.O_RDONLY, 0)
    with refused(errno.EISDIR):
        tree.open(b"/", os.O_RDONLY, 0)
    opened = tree.open(b"/f", os.O_WRONLY | os.O_APPEND, 0)
    os.lseek(opened.fd, 0, os.SEEK_SET)
    os.write(opened.fd, b" two")
    assert os.get_blocking(opened.fd)
    opened.close()
    opened.close()
    assert (root / "f").read_bytes() == b"one two"
    tree.open(b"/f", os.O_RDONLY | os.O_TRUNC, 0).close()
    assert (root / "f").read_bytes() == b"one two"
    tree.open(b"/f", os.O_RDWR | os.O_TRUNC, 0).close()
    assert (root / "f").read_bytes() == b""


def test_an_open_file_outlives_its_name(tree: Tree) -> None:
    put(tree, b"/f", b"still")
    opened = tree.open(b"/f", os.O_RDWR, 0)
    tree.unlink(b"/f")
    assert os.pread(opened.fd, 9, 0) == b"still"
    assert tree.fstat(opened).nlink == 0
    tree.fchange(opened, Change(size=2, mode=0o600))
    assert tree.fstat(opened).size == 2
    opened.close()


def test_rename_replaces_only_when_asked(tree: Tree, root: Path) -> None:
    put(tree, b"/a", b"a")
    put(tree, b"/b", b"b")
    with refused(errno.EEXIST):
        tree.rename(b"/a", b"/b", False)
    tree.rename(b"/a", b"/b", True)
    assert (root / "b").read_bytes() == b"a"
    tree.rename(b"/b", b"/c", False)
    assert names(tree, b"/") == [b"c"]
    tree.mkdir(b"/d", 0o755)
    tree.mkdir(b"/e", 0o755)
    tree.rename(b"/d", b"/e", True)
    tree.rename(b"/c", b"/e/c", False)
    with refused(errno.EINVAL):
        tree.rename(b"/e", b"/e/inner", True)
    tree.mkdir(b"/full", 0o755)
    put(tree, b"/full/x", b"")
    with refused(errno.ENOTEMPTY):
        tree.rename(b"/e", b"/full", True)
    tree.rename(b"/e/c", b"/e/c", True)
    assert names(tree, b"/e") == [b"c"]


def test_without_the_kernels_flag_a_rename_still_replaces_nothing(
    tree: Tree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launcher.host.files import files

    def unknown(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "")

    monkeypatch.setattr(files(), "rename_new", unknown)
    put(tree, b"/a", b"a")
    tree.rename(b"/a", b"/b", False)
    tree.mkdir(b"/d", 0o755)
    tree.rename(b"/d", b"/e", False)
    tree.symlink(b"b", b"/l")
    tree.rename(b"/l", b"/m", False)
    assert names(tree, b"/") == [b"b", b"e", b"m"]
    with refused(errno.EEXIST):
        tree.rename(b"/e", b"/b", False)


def test_symbolic_links_are_text(tree: Tree, root: Path) -> None:
    put(tree, b"/f", b"content")
    tree.mkdir(b"/d", 0o755)
    for link, target in ((b"/l", b"f"), (b"/d/up", b"../l"), (b"/out", b"../../etc"), (b"/abs", b"/etc"), (b"/loop", b"loop")):
        tree.symlink(target, link)
        assert tree.readlink(link) == target
        assert stat.S_ISLNK(tree.lstat(link).mode)
        with refused(errno.ELOOP):
            tree.open(link, os.O_RDONLY, 0)
    assert tree.stat(b"/d/up").size == 7
    for link, number in (
        (b"/out", errno.EXDEV),
        (b"/abs", errno.EXDEV),
        (b"/abs/passwd", errno.EXDEV),
        (b"/loop", errno.ELOOP),
    ):
        with refused(number):
            tree.stat(link)
    with pytest.raises(OSError):
        tree.lstat(b"/out/passwd")
    tree.change(b"/d/up", Change(mtime_ns=5), follow=True)
    assert tree.lstat(b"/f").mtime_ns == 5
    tree.change(b"/abs", Change(atime_ns=7, mtime_ns=9), follow=False)
    assert tree.lstat(b"/abs").mtime_ns == 9
    with refused(errno.EOPNOTSUPP):
        tree.change(b"/abs", Change(mode=0o777), follow=False)
    with refused(errno.EINVAL):
        tree.readlink(b"/f")


def test_hard_links(tree: Tree, root: Path) -> None:
    put(tree, b"/f", b"content")
    tree.link(b"/f", b"/g")
    assert tree.lstat(b"/g").nlink == 2
    assert tree.lstat(b"/g").ino == tree.lstat(b"/f").ino
    with refused(errno.EEXIST):
        tree.link(b"/f", b"/g")
    tree.symlink(b"f", b"/l")
    tree.mkdir(b"/d", 0o755)
    for other in (b"/l", b"/d"):
        with refused(errno.EPERM):
            tree.link(other, b"/h")
    # rename(2): two names of one file, nothing happens.
    tree.rename(b"/f", b"/g", True)
    assert names(tree, b"/") == [b"d", b"f", b"g", b"l"]


def test_times_to_the_nanosecond(tree: Tree) -> None:
    put(tree, b"/f", b"")
    tree.change(b"/f", Change(atime_ns=1_000_000_001, mtime_ns=-2_000_000_001), follow=False)
    assert tree.lstat(b"/f")[8:10] == (1_000_000_001, -2_000_000_001)
    tree.change(b"/f", Change(mtime_ns=3), follow=False)
    assert tree.lstat(b"/f")[8:10] == (1_000_000_001, 3)
    before = time.time_ns()
    opened = tree.open(b"/f", os.O_RDONLY, 0)
    tree.fchange(opened, Change(mtime_ns=NOW))
    opened.close()
    assert tree.lstat(b"/f").atime_ns == 1_000_000_001
    assert before <= tree.lstat(b"/f").mtime_ns <= time.time_ns()


def test_owners_are_remembered_and_never_set(tree: Tree, root: Path, memory: Memory) -> None:
    put(tree, b"/f", b"")
    tree.change(b"/f", Change(uid=999), follow=False)
    real = os.stat(root / "f")
    assert (tree.lstat(b"/f").uid, tree.lstat(b"/f").gid) == (999, real.st_gid)
    assert real.st_uid == os.getuid()
    tree.change(b"/f", Change(gid=70), follow=False)
    assert tree.lstat(b"/f")[2:4] == (999, 70)
    # New entries take those of their folder.
    tree.mkdir(b"/d", 0o700)
    tree.change(b"/d", Change(uid=5, gid=6), follow=False)
    put(tree, b"/d/f", b"")
    tree.mkdir(b"/d/d", 0o755)
    tree.symlink(b"x", b"/d/l")
    assert {entry[2:4] for _, entry in tree.listdir(b"/d")} == {(5, 6)}
    assert dict(tree.listdir(b"/d"))[b"f"].mode == stat.S_IFREG | 0o644
    for gone in (b"/f", b"/d/f", b"/d/l"):
        tree.unlink(gone)
    tree.rmdir(b"/d/d")
    tree.rmdir(b"/d")
    assert memory.empty


@pytest.mark.parametrize(("asked", "host"), [(0o400, 0o600), (0o4755, 0o755), (0o000, 0o600), (0o640, 0o640)])
def test_mode_of_a_file(tree: Tree, root: Path, asked: int, host: int) -> None:
    put(tree, b"/made", b"", asked)
    put(tree, b"/set", b"")
    tree.change(b"/set", Change(mode=asked), follow=False)
    opened = tree.open(b"/set", os.O_RDONLY, 0)
    tree.fchange(opened, Change(mode=asked))
    for name in ("made", "set"):
        assert stat.S_IMODE(os.stat(root / name).st_mode) == host
        assert stat.S_IMODE(tree.lstat(b"/" + name.encode()).mode) == asked
    assert stat.S_IMODE(tree.fstat(opened).mode) == asked
    opened.close()
    # What the host sets afterwards holds.
    os.chmod(root / "set", 0o777)
    assert stat.S_IMODE(tree.lstat(b"/set").mode) == 0o777


def test_mode_of_a_folder(tree: Tree, root: Path) -> None:
    tree.mkdir(b"/d", 0o1777)
    assert stat.S_IMODE(os.stat(root / "d").st_mode) == 0o777
    assert stat.S_IMODE(tree.lstat(b"/d").mode) == 0o1777
    tree.change(b"/d", Change(mode=0o2055), follow=False)
    assert stat.S_IMODE(os.stat(root / "d").st_mode) == 0o755
    assert stat.S_IMODE(tree.lstat(b"/d").mode) == 0o2055


def test_sparse_files_of_more_than_4_gb(tree: Tree) -> None:
    put(tree, b"/f", b"")
    tree.change(b"/f", Change(size=5 * GIB), follow=False)
    opened = tree.open(b"/f", os.O_RDWR, 0)
    os.pwrite(opened.fd, b"end", 5 * GIB)
    shown = tree.fstat(opened)
    opened.close()
    assert shown.size == 5 * GIB + 3
    assert shown.blocks * 512 < GIB


def test_names_are_bytes(tree: Tree, root: Path) -> None:
    odd = [b"\xff\xfe", b"new\nline", "ö".encode(), b"...", b" ", b"-rf", b"a\\b"]
    if sys.platform == "darwin":
        odd.remove(b"\xff\xfe")
    for name in odd:
        put(tree, b"/" + name, name)
    assert names(tree, b"/") == sorted(odd)
    for name in odd:
        assert tree.lstat(b"/" + name).size == len(name)


def test_a_folder_that_is_read_may_change(tree: Tree, root: Path) -> None:
    for index in range(50):
        (root / f"f{index}").touch()
    listed = tree.listdir(b"/")
    next(listed)
    for index in range(50):
        (root / f"f{index}").unlink()
    assert list(listed) == []
    tree.listdir(b"/").close()
    with pytest.raises(NotADirectoryError):
        (root / "f").touch()
        tree.listdir(b"/f")


class Plain:
    """The same calls by path, as a program of this computer makes them."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)

    def _at(self, path: bytes) -> bytes:
        return self._root + path

    def open(self, path: bytes, flags: int, mode: int) -> None:
        held = os.open(self._at(path), flags | os.O_NOFOLLOW, mode)
        folder = stat.S_ISDIR(os.fstat(held).st_mode)
        os.close(held)
        if folder:
            raise IsADirectoryError(errno.EISDIR, "")

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self._at(path))

    def unlink(self, path: bytes) -> None:
        os.unlink(self._at(path))

    def rename(self, old: bytes, new: bytes, replace: bool) -> None:
        if not replace and os.path.lexists(self._at(old)) and os.path.lexists(self._at(new)):
            raise FileExistsError(errno.EEXIST, "")
        os.rename(self._at(old), self._at(new))

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self._at(path))

    def link(self, old: bytes, new: bytes) -> None:
        os.link(self._at(old), self._at(new), follow_symlinks=False)

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(self._at(path))

    def lstat(self, path: bytes) -> None:
        os.lstat(self._at(path))

    def listdir(self, path: bytes) -> list[bytes]:
        return os.listdir(self._at(path))


@pytest.mark.parametrize("seed", range(4))
def test_it_is_as_if_there_were_no_share(tree: Tree, root: Path, tmp_path: Path, seed: int) -> None:
    """Thousands of calls by chance, there and on a folder beside: the same results, and the same files in the end."""
    other = tmp_path / "plain"
    other.mkdir()
    plain = Plain(other)
    chance = random.Random(seed)

    def path() -> bytes:
        return b"".join(b"/" + chance.choice([b"a", b"b", b"c"]) for _ in range(chance.randint(1, 3)))

    calls: list[Callable[[], tuple[str, tuple[object, ...]]]] = [
        lambda: (
            "open",
            (path(), chance.choice([os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_EXCL]), 0o644),
        ),
        lambda: ("mkdir", (path(), 0o755)),
        lambda: ("mkdir", (path(), 0o755)),
        lambda: ("rmdir", (path(),)),
        lambda: ("unlink", (path(),)),
        lambda: ("rename", (path(), path(), True)),
        lambda: ("rename", (path(), path(), False)),
        lambda: ("symlink", (chance.choice([b"a", b"nowhere"]), path())),
        lambda: ("link", (path(), path())),
        lambda: ("readlink", (path(),)),
        lambda: ("lstat", (path(),)),
        lambda: ("listdir", (path(),)),
    ]
    for _ in range(3000):
        name, words = chance.choice(calls)()
        # A path through a link is the guest's own to resolve: here it is refused. Links themselves cannot be linked either.
        inner = [word for word in words if isinstance(word, bytes) and word.startswith(b"/")]
        if any(os.path.islink(other / os.fsdecode(part)[1:]) for word in inner for part in _ways(word, name)):
            assert isinstance(result(tree, name, words), int), (name, words)
            continue
        ours, theirs = result(tree, name, words), result(plain, name, words)
        # Where both paths are wrong, which one is told about first is anybody's choice.
        both_failed = name in ("rename", "link") and isinstance(ours, int) and isinstance(theirs, int)
        assert both_failed or ours == theirs, (name, words)
    assert content(root) == content(other)
    assert content(root)


def _ways(path: bytes, name: str) -> list[bytes]:
    names = path.split(b"/")
    ways = [b"/".join(names[:count]) for count in range(2, len(names))]
    return [*ways, path] if name in ("link", "listdir", "open") else ways


def result(where: Tree | Plain, name: str, words: tuple[object, ...]) -> object:
    try:
        found = getattr(where, name)(*words)
    except OSError as error:
        return error.errno
    if name == "listdir":
        return sorted(entry[0] if isinstance(entry, tuple) else entry for entry in found)
    if name == "open" and found is not None:
        found.close()
    return found if name == "readlink" else None


def content(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): (path.is_symlink() and os.readlink(path), path.is_dir(), path.lstat().st_nlink)
        for path in folder.rglob("*")
    }


def test_after_its_end(root: Path) -> None:
    tree = Tree(root, Policy(root), Nothing())
    tree.close()
    tree.close()
    for path in (b"/", b"/a", b"/a/b"):
        with refused(errno.EBADF):
            tree.lstat(path)


def test_statvfs(tree: Tree, root: Path) -> None:
    put(tree, b"/f", b"")
    for path in (b"/", b"/f"):
        assert tree.statvfs(path).f_blocks == os.statvfs(root).f_blocks


def test_the_policy_may_change_meanwhile(tree: Tree, root: Path) -> None:
    put(tree, b"/f", b"")
    tree.replace(Policy(root, hidden=["f"]))
    with refused(errno.ENOENT):
        tree.lstat(b"/f")
    tree.replace(Policy(root))
    assert tree.lstat(b"/f").size == 0


def test_case_clashes_are_errors(root: Path, memory: Memory) -> None:
    """With the comparison of a file system that does not tell case; the one here may."""
    tree = Tree(root, Policy(root, names=Folded()), memory)
    put(tree, b"/readme", b"kept")
    for make in (
        lambda: put(tree, b"/README", b"lost"),
        lambda: tree.mkdir(b"/README", 0o755),
        lambda: tree.symlink(b"x", b"/Readme"),
    ):
        with refused(errno.EEXIST):
            make()
    put(tree, b"/other", b"")
    for replace in (True, False):
        with refused(errno.EEXIST):
            tree.rename(b"/other", b"/README", replace)
    with refused(errno.EEXIST):
        tree.link(b"/other", b"/README")
    tree.rename(b"/readme", b"/README", False)
    assert names(tree, b"/") == [b"README", b"other"]
    assert (root / "README").read_bytes() == b"kept"
    (root / "other").unlink()
    (root / "Other").touch()
    tree.lstat(b"/Other")
    tree.unlink(b"/Other")
    put(tree, b"/other", b"")
    tree.close()


def test_one_without_memory(root: Path) -> None:
    tree = Tree(root, Policy(root), Nothing())
    put(tree, b"/f", b"", 0o400)
    assert stat.S_IMODE(tree.lstat(b"/f").mode) == 0o600
    tree.close()
