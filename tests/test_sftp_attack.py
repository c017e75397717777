"""A guest that means harm, at the level of the tree: nothing outside the share is read, listed, written or removed."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors of folders")
if sys.platform != "win32":
    from launcher.host.files import files
    from launcher.sftp.policy import Policy
    from launcher.sftp.remembered import Nothing
    from launcher.sftp.stat import Change
    from launcher.sftp.tree import Tree

ROUNDS = 3000
WRITE = os.O_WRONLY | os.O_CREAT
SECRET = b"secret of the host"


@contextmanager
def refused(*numbers: int) -> Iterator[None]:
    with pytest.raises(OSError) as raised:
        yield
    assert raised.value.errno in numbers, raised.value


class Ground:
    """A share with a folder beside it that nobody may reach."""

    def __init__(self, base: Path) -> None:
        self.root = base / "share"
        self.outside = base / "outside"
        for folder in (self.root / "d" / "sub", self.outside / "sub"):
            folder.mkdir(parents=True)
        (self.root / "d" / "f").write_bytes(b"inside")
        (self.outside / "f").write_bytes(SECRET)
        (self.outside / "only-outside").write_bytes(SECRET)
        self.tree = Tree(self.root, Policy(self.root, hidden=["hidden"], protected=[".bashrc"]), Nothing())
        self.before = self.state()

    def state(self) -> dict[Path, tuple[int, ...]]:
        """What any change of what is outside would change."""
        found = {}
        for path in (self.outside, *self.outside.rglob("*")):
            st = path.lstat()
            found[path] = (st.st_ino, st.st_mode, st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_nlink)
        return found


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path)
    descriptors = len(os.listdir("/dev/fd"))
    assert not made.tree._walk._policy._identities._pins
    yield made
    assert made.state() == made.before
    pins = [held for held, _ in made.tree._walk._policy._identities._pins.values() if held >= 0]
    assert len(os.listdir("/dev/fd")) == descriptors + len(pins)
    made.tree.close()


def every_way(tree: Tree, path: bytes) -> list[Callable[[], object]]:
    """All that can be asked about a path."""
    return [
        lambda: tree.lstat(path),
        lambda: tree.open(path, os.O_RDONLY, 0),
        lambda: tree.open(path, WRITE | os.O_TRUNC, 0o644),
        lambda: tree.listdir(path),
        lambda: tree.readlink(path),
        lambda: tree.mkdir(path, 0o755),
        lambda: tree.rmdir(path),
        lambda: tree.unlink(path),
        lambda: tree.symlink(b"x", path),
        lambda: tree.link(path, b"/made"),
        lambda: tree.link(b"/d/f", path),
        lambda: tree.rename(path, b"/made", True),
        lambda: tree.rename(b"/d", path, True),
        lambda: tree.change(path, Change(mode=0o777), follow=False),
        lambda: tree.change(path, Change(size=0), follow=True),
        lambda: tree.stat(path),
        lambda: tree.statvfs(path),
    ]


@pytest.mark.parametrize(
    ("path", "numbers"),
    [
        (b"/..", (errno.EINVAL,)),
        (b"/../outside/f", (errno.EINVAL,)),
        (b"/d/../../outside/f", (errno.EINVAL,)),
        (b"/d/./../../outside/f", (errno.EINVAL,)),
        (b"d/f", (errno.EINVAL,)),
        (b"", (errno.EINVAL,)),
        (b"/d/f\0", (errno.EINVAL,)),
        (b"/d\0/f", (errno.EINVAL,)),
        (b"/" + b"n" * 256, (errno.ENAMETOOLONG,)),
        (b"/" + b"n" * 256 + b"/f", (errno.ENAMETOOLONG, errno.ENOENT)),
        (b"/n" * 2049, (errno.ENAMETOOLONG,)),
        (b"/" + b"n" * (1 << 20), (errno.ENAMETOOLONG,)),
    ],
)
def test_paths_that_are_none(ground: Ground, path: bytes, numbers: tuple[int, ...]) -> None:
    for ask in every_way(ground.tree, path):
        with refused(*numbers):
            ask()


def test_the_root_stays(ground: Ground) -> None:
    for ask in (
        lambda: ground.tree.rmdir(b"/"),
        lambda: ground.tree.unlink(b"/"),
        lambda: ground.tree.mkdir(b"/", 0o755),
        lambda: ground.tree.rename(b"/", b"/d/x", True),
        lambda: ground.tree.rename(b"/d", b"/", True),
        lambda: ground.tree.symlink(b"x", b"/"),
        lambda: ground.tree.open(b"/", WRITE, 0o644),
    ):
        with pytest.raises(OSError):
            ask()
    assert ground.tree.lstat(b"//./d//f").size == ground.tree.lstat(b"/d/f/").size == 6


def test_deep_paths(ground: Ground) -> None:
    path = b""
    while len(path) + 200 < 4096:
        path += b"/" + b"d" * 199
        ground.tree.mkdir(path, 0o755)
    last = path + b"/" + b"f" * (4095 - len(path))
    assert len(last) == 4096
    ground.tree.open(last, WRITE, 0o644).close()
    assert ground.tree.lstat(last).size == 0
    assert [name for name, _ in ground.tree.listdir(path)] == [last.rpartition(b"/")[2]]
    ground.tree.unlink(last)
    with refused(errno.ENAMETOOLONG):
        ground.tree.open(last + b"f", WRITE, 0o644)
    deep = b"/e" * 2048
    for end in range(2, len(deep) + 1, 2):
        ground.tree.mkdir(deep[:end], 0o755)
    assert ground.tree.lstat(deep).nlink >= 1
    # By us, step by step: what cleans up after the tests recurses.
    for top, step in ((deep, 2), (path, 200)):
        for end in range(len(top), 0, -step):
            ground.tree.rmdir(top[:end])


def test_links_lead_nowhere(ground: Ground) -> None:
    tree, root = ground.tree, ground.root
    (root / "out").symlink_to(ground.outside)
    (root / "up").symlink_to("../outside")
    (root / "file").symlink_to(ground.outside / "f")
    (root / "proc").symlink_to("/proc/self/root")
    (root / "fd").symlink_to(f"/proc/self/fd/{tree._walk.root}")
    for path in (b"/out/f", b"/up/f", b"/out/new", b"/up/sub", b"/proc/etc", b"/fd/../outside", b"/fd/d/f"):
        for ask in every_way(tree, path):
            with pytest.raises(OSError):
                ask()
    for path in (b"/file", b"/out", b"/up"):
        for ask in (
            lambda path=path: tree.open(path, os.O_RDONLY, 0),
            lambda path=path: tree.open(path, os.O_WRONLY | os.O_TRUNC, 0),
            lambda path=path: tree.open(path, WRITE, 0o644),
            lambda path=path: tree.listdir(path),
            lambda path=path: tree.stat(path),
            lambda path=path: tree.change(path, Change(mode=0o777), follow=False),
            lambda path=path: tree.change(path, Change(mode=0o777), follow=True),
            lambda path=path: tree.change(path, Change(size=0), follow=False),
            lambda path=path: tree.link(path, b"/made"),
        ):
            with pytest.raises(OSError):
                ask()
        tree.change(path, Change(mtime_ns=1), follow=False)
    tree.rename(b"/file", b"/renamed", True)
    tree.unlink(b"/renamed")
    tree.unlink(b"/out")


def test_special_files_are_seen_and_never_opened(ground: Ground) -> None:
    tree, root = ground.tree, ground.root
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listening, _in_folder(root):
        listening.bind("socket")
        special = [b"fifo", b"socket"]
        with suppress(PermissionError):  # root's alone
            os.mknod(root / "null", 0o020666, os.makedev(1, 3))
            special.append(b"null")
        for name in special:
            assert tree.lstat(b"/" + name).ino
            assert name in dict(tree.listdir(b"/"))
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, WRITE):
                with refused(errno.ENXIO):
                    tree.open(b"/" + name, flags, 0o644)
            with refused(errno.ENXIO):
                tree.change(b"/" + name, Change(size=0), follow=True)
            with refused(errno.EPERM):
                tree.link(b"/" + name, b"/d/linked")
            tree.rename(b"/" + name, b"/d/" + name, True)
            tree.unlink(b"/d/" + name)


@contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def swapping(step: Callable[[], None]) -> Iterator[None]:
    """Something of the host that goes on for as long as the guest asks."""
    over = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while not over.is_set():
                step()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not failed, failed


def test_a_folder_that_is_swapped_for_a_link(ground: Ground) -> None:
    """`d` is in turn a folder and a link to outside, while everything is asked about what is in it."""
    root, tree = ground.root, ground.tree
    (root / "link").symlink_to(ground.outside)
    seen: set[str] = set()

    def swap() -> None:
        os.rename(root / "d", root / "real")
        os.rename(root / "link", root / "d")
        os.rename(root / "d", root / "link")
        os.rename(root / "real", root / "d")

    def read() -> None:
        file = tree.open(b"/d/f", os.O_RDONLY, 0)
        try:
            assert not os.read(file.fd, 99).startswith(SECRET[:3])
        finally:
            file.close()

    def write() -> None:
        file = tree.open(b"/d/f", WRITE | os.O_TRUNC, 0o644)
        try:
            os.write(file.fd, b"new")
        finally:
            file.close()

    def listed() -> None:
        assert b"only-outside" not in dict(tree.listdir(b"/d"))

    def seen_from_outside() -> None:
        found = tree.lstat(b"/d/f")
        assert found.ino != ground.before[ground.outside / "f"][0]

    def made_and_gone() -> None:
        tree.mkdir(b"/d/new", 0o755)
        tree.rmdir(b"/d/new")

    def renamed() -> None:
        tree.rename(b"/d/f", b"/d/g", True)
        tree.rename(b"/d/g", b"/d/f", False)

    def changed() -> None:
        tree.change(b"/d/f", Change(mode=0o640, mtime_ns=1, size=3), follow=True)

    def linked() -> None:
        tree.link(b"/d/f", b"/d/h")
        tree.unlink(b"/d/h")

    def nothing_outside() -> None:
        with pytest.raises(OSError):
            tree.lstat(b"/d/only-outside")
        with pytest.raises(OSError):
            tree.unlink(b"/d/only-outside")

    needed = {"read", "write", "listed", "seen_from_outside"}
    steps = [read, write, listed, seen_from_outside, made_and_gone, renamed, changed, linked, nothing_outside]
    with swapping(swap):
        number = 0
        while number < ROUNDS or (not seen >= needed and number < 100 * ROUNDS):
            step = steps[number % len(steps)]
            number += 1
            try:
                step()
                seen.add(step.__name__)
            except OSError as error:
                assert error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.EXDEV, errno.ESTALE), error
    assert seen >= needed  # the race was also won


def test_a_file_that_is_swapped_for_a_link_or_a_fifo(ground: Ground) -> None:
    """The last component: it is neither followed nor waited for."""
    root, tree = ground.root, ground.tree
    (root / "link").symlink_to(ground.outside / "f")
    os.mkfifo(root / "fifo")
    (root / "file").write_bytes(b"file")

    def swap() -> None:
        for other in ("link", "file", "fifo"):
            os.rename(root / other, root / "x")
            os.rename(root / "x", root / other)

    opened = refusals = number = 0
    with swapping(swap):
        while number < ROUNDS or (not (opened and refusals) and number < 100 * ROUNDS):
            number += 1
            flags = (os.O_RDONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDWR)[number % 3]
            try:
                file = tree.open(b"/x", flags, 0)
            except OSError as error:
                assert error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ESTALE), error
                refusals += 1
                with suppress(OSError):
                    tree.change(b"/x", Change(mode=0o600), follow=False)
                continue
            opened += 1
            assert SECRET not in (os.pread(file.fd, 99, 0) if flags != os.O_WRONLY | os.O_TRUNC else b"")
            file.close()
    assert opened
    assert refusals


def test_the_parent_of_a_hidden_folder_that_moves(tmp_path: Path) -> None:
    """The host moves the folder above a hidden one back and forth; the guest tries to get at the hidden
    one by all names that it ever has."""
    root = tmp_path / "share"
    (root / "conf" / "hidden").mkdir(parents=True)
    (root / "conf" / "hidden" / "f").write_bytes(SECRET)
    tree = Tree(root, Policy(root, hidden=["conf/hidden"]), Nothing())

    def swap() -> None:
        os.rename(root / "conf", root / "other")
        with suppress(OSError):
            os.rmdir(root / "conf")
        with suppress(OSError):
            os.rename(root / "other", root / "conf")

    try:
        tree.lstat(b"/conf")
        with swapping(swap):
            for number in range(ROUNDS):
                name = (b"/conf", b"/other")[number % 2]
                for ask in (
                    lambda name=name: tree.lstat(name + b"/hidden"),
                    lambda name=name: tree.lstat(name + b"/hidden/f"),
                    lambda name=name: tree.open(name + b"/hidden/f", os.O_RDONLY, 0),
                    lambda name=name: tree.rename(name + b"/hidden", b"/mine", True),
                    lambda name=name: tree.rename(name, b"/mine", True),
                    lambda name=name: tree.listdir(name + b"/hidden"),
                ):
                    with pytest.raises(OSError):
                        ask()
                with suppress(OSError):
                    assert b"hidden" not in dict(tree.listdir(name))
        assert not (root / "mine").exists()
    finally:
        tree.close()


def test_a_start_up_file_that_is_swapped_in(ground: Ground) -> None:
    """The host replaces a guarded file over and over, as editors do; its other names are swapped with a free file."""
    root, tree = ground.root, ground.tree
    (root / ".bashrc").write_bytes(b"host")
    (root / "free").write_bytes(b"free")
    os.link(root / ".bashrc", root / "alias")

    def swap() -> None:
        for other in ("alias", "free"):
            os.rename(root / other, root / "x")
            os.rename(root / "x", root / other)

    with swapping(swap):
        for _ in range(ROUNDS):
            with suppress(OSError):
                file = tree.open(b"/x", os.O_WRONLY | os.O_TRUNC, 0)
                os.write(file.fd, b"free")
                file.close()
            with suppress(OSError):
                tree.link(b"/x", b"/mine")
                tree.unlink(b"/mine")
            assert (root / ".bashrc").read_bytes() == b"host"
    assert os.stat(root / ".bashrc").st_nlink == 2
    assert (root / "free").read_bytes() == b"free"


@contextmanager
def in_between(step: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The host does something in the worst moment: when an entry was looked at, and nothing is done yet."""
    from launcher.sftp import changing, entries, listing, moving, opening, tree

    done = []

    def look(*arguments: Any) -> Any:
        found = entries.look(*arguments)
        if not done:
            done.append(True)
            step()
        return found

    with monkeypatch.context() as patch:
        for module in (changing, listing, moving, opening, tree):
            patch.setattr(module, "look", look)
        yield
    assert done


@pytest.mark.parametrize("other", ["link", "folder-link", "fifo", "guarded", "hidden", "folder"])
def test_another_entry_between_look_and_deed(ground: Ground, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    root, tree = ground.root, ground.tree
    (root / ".bashrc").write_bytes(b"host")
    (root / "hidden").write_bytes(SECRET)
    stamp = os.stat(root / ".bashrc").st_mtime_ns
    make = {
        "link": lambda: (root / "x").symlink_to(ground.outside / "f"),
        "folder-link": lambda: (root / "x").symlink_to(ground.outside),
        "fifo": lambda: os.mkfifo(root / "x"),
        "guarded": lambda: os.link(root / ".bashrc", root / "x"),
        "hidden": lambda: os.link(root / "hidden", root / "x"),
        "folder": lambda: (root / "x").mkdir(),
    }[other]

    def swap() -> None:
        os.rename(root / "x", root / f"was{len(os.listdir(root))}")
        make()

    def fresh(*, folder: bool = False) -> None:
        with suppress(FileNotFoundError):
            os.rename(root / "x", root / f"old{len(os.listdir(root))}")
        (root / "x").mkdir() if folder else (root / "x").write_bytes(b"free")

    tree.lstat(b"/.bashrc")
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDWR, WRITE | os.O_TRUNC):
        fresh()
        with in_between(swap, monkeypatch), pytest.raises(OSError):
            tree.open(b"/x", flags, 0o644)
    for change in (Change(size=0), Change(mode=0o777)):
        fresh()
        with in_between(swap, monkeypatch), pytest.raises(OSError):
            tree.change(b"/x", change, follow=False)
    fresh()
    with in_between(swap, monkeypatch), pytest.raises(OSError):
        tree.link(b"/x", b"/mine")
    assert not os.path.lexists(root / "mine")
    fresh(folder=True)
    with in_between(swap, monkeypatch), suppress(OSError):
        assert list(tree.listdir(b"/x")) == []
    assert (root / ".bashrc").read_bytes() == b"host"
    assert os.stat(root / ".bashrc").st_mtime_ns == stamp
    assert (root / "hidden").read_bytes() == SECRET


def test_a_rename_never_replaces_what_came_meanwhile(ground: Ground) -> None:
    root, tree = ground.root, ground.tree
    made = 0

    def appear() -> None:
        nonlocal made
        with suppress(FileExistsError):
            os.close(os.open(root / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            made += 1

    taken = removed = 0
    (root / "mine").write_bytes(b"mine")
    with swapping(appear):
        for _ in range(ROUNDS):
            try:
                tree.rename(b"/mine", b"/new", False)
            except FileExistsError:
                assert (root / "mine").read_bytes() == b"mine"
                assert (root / "new").read_bytes() == b""
                (root / "new").unlink()
                removed += 1
            else:
                assert (root / "new").read_bytes() == b"mine"
                (root / "new").rename(root / "mine")
                taken += 1
    left = (root / "new").exists()
    assert made == removed + left
    assert taken or removed


def test_many_threads_at_once(ground: Ground) -> None:
    """What one session asks while another one still ends: no descriptor is closed twice, or used for another folder."""
    tree, root = ground.tree, ground.root
    folders = [b"/p%d/q/r" % number for number in range(4)]
    for folder in folders:
        (root / os.fsdecode(folder[1:])).mkdir(parents=True)
        (root / os.fsdecode(folder[1:]) / "f").write_bytes(folder)
    (root / "hidden").mkdir()
    failed: list[BaseException] = []

    def ask(folder: bytes) -> None:
        try:
            for number in range(500):
                file = tree.open(folder + b"/f", os.O_RDONLY, 0)
                assert os.pread(file.fd, 99, 0) == folder
                file.close()
                assert [name for name, _ in tree.listdir(folder)] == [b"f"]
                tree.rename(folder, folder + b"2", False)
                tree.rename(folder + b"2", folder, False)
                with pytest.raises(FileNotFoundError):
                    tree.lstat(b"/hidden/x")
                if number % 50 == 0:
                    tree.replace(Policy(root, hidden=["hidden"]))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def test_what_is_hidden_is_known_while_links_on_the_way_are_swapped(ground: Ground) -> None:
    """realpath itself fails where a link is a folder a moment later."""
    (ground.root / "hidden" / "sub").mkdir(parents=True)
    (ground.root / "way").mkdir()
    policy = Policy(ground.root, hidden=["hidden"])

    def step() -> None:
        (ground.root / "way").rename(ground.root / "away")
        (ground.root / "way").symlink_to("away")
        (ground.root / "way").unlink()
        (ground.root / "away").rename(ground.root / "way")

    with swapping(step):
        for _ in range(5000):
            assert not policy.hides(f"{ground.root}/way/x")
            assert policy.hides(f"{ground.root}/hidden/sub")


def test_descriptors_run_out(ground: Ground) -> None:
    """An error to the guest, and nothing else: all are there again when it has closed its files."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/dev/fd"))
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40, limits[1]))
    try:
        with refused(errno.EMFILE):
            while True:
                opened.append(ground.tree.open(b"/d/f", os.O_RDONLY, 0))
        for ask in every_way(ground.tree, b"/d/sub/x"):
            with pytest.raises(OSError):
                ask()
        assert len(opened) > 20
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in opened:
            file.close()
    assert ground.tree.lstat(b"/d/f").size == 6


def test_step_by_step_is_the_same(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels without openat2."""
    if sys.platform != "linux":
        pytest.skip("Linux")
    monkeypatch.setattr(files(), "_beneath", False)
    test_links_lead_nowhere(ground)
    with refused(errno.ENOENT):
        ground.tree.lstat(b"/none/f")
    assert ground.tree.lstat(b"/d/f").size == 6
