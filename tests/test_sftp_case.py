"""A share on a file system that does not tell case. CI has none on Linux, so the calls by name are given its habits."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors of folders")
if sys.platform != "win32":
    from launcher.host.files import files
    from launcher.sftp import changing, entries, listing, moving, opening, walk
    from launcher.sftp import tree as tree_module
    from launcher.sftp.names import Folded, comparer
    from launcher.sftp.policy import Policy
    from launcher.sftp.remembered import Nothing
    from launcher.sftp.tree import Tree

WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def spelled(name: bytes, folder: int) -> bytes:
    """The entry of the folder that such a file system takes for the name."""
    held = os.open(b".", os.O_RDONLY, dir_fd=folder)
    try:
        there = [os.fsencode(other) for other in os.listdir(held)]
    finally:
        os.close(held)
    return next((other for other in there if other.decode().casefold() == name.decode().casefold()), name)


class CaselessOs:
    """The module os, with calls by descriptor and name that find a name in any case."""

    def __getattr__(self, name: str) -> Any:
        call = getattr(os, name)
        if name in ("stat", "open", "mkdir", "unlink", "rmdir", "symlink", "readlink", "utime"):
            return lambda *words, **options: self._one(call, words, options, 1 if name == "symlink" else 0)
        return getattr(self, f"_{name}", call) if name in ("rename", "link") else call

    @staticmethod
    def _one(call: Callable[..., Any], words: tuple[Any, ...], options: dict[str, Any], at: int) -> Any:
        if "dir_fd" not in options:
            return call(*words, **options)
        changed = list(words)
        changed[at] = spelled(os.fsencode(words[at]), options["dir_fd"])
        return call(*changed, **options)

    @staticmethod
    def _rename(old: bytes, new: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        old = spelled(old, src_dir_fd)
        real = spelled(new, dst_dir_fd)
        same = os.stat(old, dir_fd=src_dir_fd).st_ino == (os.stat(real, dir_fd=dst_dir_fd).st_ino if real != new else -1)
        os.rename(old, new if same else real, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    @staticmethod
    def _link(old: bytes, new: bytes, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool) -> None:
        old, new = spelled(old, src_dir_fd), spelled(new, dst_dir_fd)
        os.link(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as raised:
        yield
    assert raised.value.errno == number, raised.value


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "readme").write_bytes(b"kept")
    (tmp_path / "dir").mkdir()
    (tmp_path / ".ssh").mkdir()
    return tmp_path


@pytest.fixture
def tree(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    made = Tree(root, Policy(root, hidden=[".ssh"], names=Folded()), Nothing())
    caseless = CaselessOs()
    for module in (changing, entries, listing, moving, opening, tree_module):
        monkeypatch.setattr(module, "os", caseless)

    def rename_new(base: int, name: bytes, new_base: int, new_name: bytes) -> None:
        real = spelled(new_name, new_base)
        if os.path.lexists(f"/dev/fd/{new_base}/{os.fsdecode(real)}"):
            raise FileExistsError(errno.EEXIST, "")
        os.rename(spelled(name, base), real, src_dir_fd=base, dst_dir_fd=new_base)

    monkeypatch.setattr(files(), "rename_new", rename_new)
    monkeypatch.setattr(
        walk,
        "_open_folder",
        lambda base, path: _caseless_folder(base, path) if path else os.open(b".", os.O_RDONLY, dir_fd=base),
    )
    yield made
    monkeypatch.undo()
    made.close()


def _caseless_folder(base: int, path: bytes) -> int:
    at = base
    for name in path.split(b"/"):
        following = os.open(spelled(name, at), files().FOLDER, dir_fd=at)
        if at != base:
            os.close(at)
        at = following
    return at


def put(tree: Tree, path: bytes, content: bytes, flags: int = WRITE) -> None:
    opened = tree.open(path, flags, 0o644)
    os.write(opened.fd, content)
    opened.close()


def test_another_spelling_is_not_there_and_cannot_be_made(tree: Tree, root: Path) -> None:
    for ask in (
        lambda: tree.lstat(b"/README"),
        lambda: tree.open(b"/README", os.O_RDWR | os.O_TRUNC, 0),
        lambda: tree.unlink(b"/README"),
        lambda: tree.rename(b"/Readme", b"/x", True),
        lambda: tree.rmdir(b"/Dir"),
        lambda: tree.listdir(b"/DIR"),
    ):
        with refused(errno.ENOENT):
            ask()
    put(tree, b"/other", b"other")
    for make in (
        lambda: put(tree, b"/README", b"lost"),
        lambda: put(tree, b"/README", b"lost", WRITE | os.O_EXCL),
        lambda: tree.mkdir(b"/README", 0o755),
        lambda: tree.mkdir(b"/Dir", 0o755),
        lambda: tree.symlink(b"x", b"/Readme"),
        lambda: tree.link(b"/other", b"/Readme"),
        lambda: tree.rename(b"/other", b"/README", True),
        lambda: tree.rename(b"/other", b"/README", False),
        lambda: tree.rename(b"/dir", b"/README", True),
    ):
        with refused(errno.EEXIST):
            make()
    assert {path.name for path in root.iterdir()} == {"readme", "other", "dir", ".ssh"}
    assert (root / "readme").read_bytes() == b"kept"
    assert tree.lstat(b"/readme").size == 4


def test_a_rename_may_change_the_case_alone(tree: Tree, root: Path) -> None:
    for replace, old, new in ((True, b"/readme", b"/README"), (False, b"/README", b"/Readme"), (True, b"/dir", b"/DIR")):
        tree.rename(old, new, replace)
        with refused(errno.ENOENT):
            tree.lstat(old)
        tree.lstat(new)
    assert {path.name for path in root.iterdir()} == {"Readme", "DIR", ".ssh"}
    assert (root / "Readme").read_bytes() == b"kept"


def test_replacing_by_the_same_spelling_works(tree: Tree, root: Path) -> None:
    put(tree, b"/new", b"new")
    tree.rename(b"/new", b"/readme", True)
    assert tree.lstat(b"/readme").size == 3
    tree.unlink(b"/readme")
    put(tree, b"/README", b"now it is free")
    assert tree.lstat(b"/README").size == 14


def test_hidden_in_every_case(tree: Tree, root: Path) -> None:
    (root / ".ssh" / "id").write_bytes(b"x")
    for name in (b"/.ssh", b"/.SSH", b"/.Ssh/id", b"/.sSH/ID"):
        with refused(errno.ENOENT):
            tree.lstat(name)
        with refused(errno.ENOENT):
            tree.open(name, os.O_RDONLY, 0)
    for name in (b"/.ssh", b"/.SSH"):
        with refused(errno.EACCES):
            tree.rename(b"/dir", name, True)
        with refused(errno.EACCES):
            tree.mkdir(name, 0o755)


def test_the_comparison_is_seen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.sftp import names

    monkeypatch.setattr(names, "os", CaselessOs())
    held = os.open(root, os.O_RDONLY)
    try:
        assert not comparer(held).exact
    finally:
        os.close(held)
