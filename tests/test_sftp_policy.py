"""Places of a share with rules of their own: by name and by identity, whatever host or guest does to the folders around."""

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
    from launcher.sftp.names import Exact, Folded, comparer
    from launcher.sftp.places import defaults
    from launcher.sftp.policy import Policy
    from launcher.sftp.remembered import Nothing
    from launcher.sftp.stat import Change
    from launcher.sftp.tree import Tree

WRITE = os.O_WRONLY | os.O_CREAT


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as raised:
        yield
    assert raised.value.errno == number, raised.value


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    for folder in (".ssh/sub", ".config/gcloud", ".config/fish", ".local/bin", "code"):
        (made / folder).mkdir(parents=True)
    for file in (".ssh/id", ".ssh/known_hosts", ".ssh/sub/deep", ".netrc", ".bashrc", ".config/fish/config.fish", "code/f"):
        (made / file).write_text(file)
    return made


HIDDEN = [".ssh", ".netrc", ".aws", ".config/gcloud"]
GUARDED = [".bashrc", ".zshrc", ".config/fish", ".local/bin", ".config/systemd/user"]


@pytest.fixture
def opened(home: Path) -> Iterator[Callable[..., Tree]]:
    trees: list[Tree] = []

    def make(**options: Any) -> Tree:
        policy = Policy(home, **({"hidden": HIDDEN, "protected": GUARDED} | options))
        trees.append(Tree(home, policy, Nothing()))
        return trees[-1]

    yield make
    for tree in trees:
        tree.close()


def names(tree: Tree, path: bytes) -> list[bytes]:
    return sorted(name for name, _ in tree.listdir(path))


def test_hidden_places_do_not_exist(opened: Callable[..., Tree]) -> None:
    tree = opened()
    assert names(tree, b"/") == [b".bashrc", b".config", b".local", b"code"]
    assert names(tree, b"/.config") == [b"fish"]
    for path in (
        b"/.ssh",
        b"/.ssh/id",
        b"/.ssh/id/x",
        b"/.ssh/sub/deep",
        b"/.netrc",
        b"/.netrc/x",
        b"/.config/gcloud",
        b"/.aws",
    ):
        for ask in (
            lambda path=path: tree.lstat(path),
            lambda path=path: tree.stat(path),
            lambda path=path: tree.open(path, os.O_RDONLY, 0),
            lambda path=path: tree.open(path, os.O_WRONLY, 0),
            lambda path=path: tree.listdir(path),
            lambda path=path: tree.readlink(path),
            lambda path=path: tree.unlink(path),
            lambda path=path: tree.rmdir(path),
            lambda path=path: tree.statvfs(path),
            lambda path=path: tree.change(path, Change(mode=0o777), follow=False),
            lambda path=path: tree.rename(path, b"/x", True),
            lambda path=path: tree.link(path, b"/x"),
        ):
            with refused(errno.ENOENT):
                ask()


@pytest.mark.parametrize("name", [b"/.ssh", b"/.aws", b"/.netrc", b"/.config/gcloud"])
def test_nothing_can_be_made_by_a_hidden_name(opened: Callable[..., Tree], home: Path, name: bytes) -> None:
    tree = opened()
    before = {path: path.lstat().st_ino for path in home.rglob("*")}
    for make in (
        lambda: tree.mkdir(name, 0o755),
        lambda: tree.open(name, WRITE, 0o644),
        lambda: tree.symlink(b"code", name),
        lambda: tree.link(b"/code/f", name),
        lambda: tree.rename(b"/code", name, True),
        lambda: tree.rename(b"/code/f", name, False),
    ):
        with refused(errno.EACCES):
            make()
    assert {path: path.lstat().st_ino for path in home.rglob("*")} == before


def test_what_holds_a_place_stays_where_it_is(opened: Callable[..., Tree], home: Path) -> None:
    tree = opened()
    for path in (b"/.config", b"/.local"):
        for change in (
            lambda path=path: tree.rename(path, b"/moved", True),
            lambda path=path: tree.rename(b"/code", path, True),
            lambda path=path: tree.rmdir(path),
        ):
            with refused(errno.EBUSY):
                change()
    tree.mkdir(b"/.config/other", 0o755)
    tree.rename(b"/.config/other", b"/.config/another", False)
    # A folder on the way that is missing may be made, by nothing else than mkdir.
    for make in (
        lambda: tree.symlink(b"../code", b"/.config/systemd"),
        lambda: tree.rename(b"/code", b"/.config/systemd", False),
        lambda: tree.open(b"/.config/systemd", WRITE, 0o644),
    ):
        with refused(errno.EACCES):
            make()
    tree.mkdir(b"/.config/systemd", 0o755)
    tree.mkdir(b"/.config/systemd/other", 0o755)
    with refused(errno.EACCES):
        tree.mkdir(b"/.config/systemd/user", 0o755)
    with refused(errno.EACCES):
        tree.rename(b"/.config/systemd/other", b"/.config/systemd/user", False)


def test_guarded_places_are_read_only(opened: Callable[..., Tree], home: Path) -> None:
    tree = opened()
    file = tree.open(b"/.bashrc", os.O_RDONLY, 0)
    assert os.read(file.fd, 9) == b".bashrc"
    with refused(errno.EACCES):
        tree.fchange(file, Change(mode=0o777))
    tree.change(b"/.bashrc", Change(uid=5), follow=False)
    file.close()
    assert names(tree, b"/.config/fish") == [b"config.fish"]
    before = {path: path.lstat().st_mtime_ns for path in home.rglob("*") if path != home / "code"}
    for path in (b"/.bashrc", b"/.config/fish/config.fish"):
        for change in (
            lambda path=path: tree.open(path, os.O_WRONLY, 0),
            lambda path=path: tree.open(path, os.O_RDONLY | os.O_TRUNC, 0),
            lambda path=path: tree.change(path, Change(size=0), follow=True),
            lambda path=path: tree.change(path, Change(mode=0o777), follow=False),
            lambda path=path: tree.change(path, Change(mtime_ns=1), follow=False),
            lambda path=path: tree.unlink(path),
            lambda path=path: tree.rename(path, b"/code/x", True),
            lambda path=path: tree.rename(b"/code/f", path, True),
            lambda path=path: tree.link(path, b"/code/x"),
        ):
            with refused(errno.EACCES):
                change()
    for change in (
        lambda: tree.open(b"/.zshrc", WRITE, 0o644),
        lambda: tree.open(b"/.local/bin/x", WRITE, 0o755),
        lambda: tree.mkdir(b"/.local/bin/x", 0o755),
        lambda: tree.rmdir(b"/.local/bin"),
        lambda: tree.rename(b"/.local/bin", b"/bin", False),
    ):
        with refused(errno.EACCES):
            change()
    assert {path: path.lstat().st_mtime_ns for path in home.rglob("*") if path != home / "code"} == before


def test_by_identity_wherever_they_are(opened: Callable[..., Tree], home: Path) -> None:
    """What the host has linked or renamed; after the first look the old name is no longer needed."""
    os.link(home / ".bashrc", home / "code" / "rc")
    os.link(home / ".netrc", home / "code" / "netrc")
    tree = opened()
    with refused(errno.EACCES):
        tree.open(b"/code/rc", os.O_WRONLY, 0)
    with refused(errno.EACCES):
        tree.unlink(b"/code/rc")
    assert names(tree, b"/code") == [b"f", b"rc"]
    os.rename(home / ".ssh", home / "code" / "keys")
    os.rename(home / ".netrc", home / "code" / "n2")
    os.rename(home / ".config", home / "conf")
    (home / ".ssh").mkdir()
    for policy in (tree, tree):
        assert names(policy, b"/code") == [b"f", b"rc"]
        for path in (b"/code/keys", b"/code/keys/id", b"/code/keys/sub/deep", b"/code/n2", b"/conf/gcloud", b"/.ssh"):
            with refused(errno.ENOENT):
                policy.lstat(path)
        policy._walk.look_again()  # as after a second
    with refused(errno.EACCES):
        tree.open(b"/conf/fish/new", WRITE, 0o644)


def test_an_inode_that_is_used_again_is_free(opened: Callable[..., Tree], home: Path) -> None:
    """Editors write a new file and rename it: the old one's number soon belongs to a file of the guest."""
    tree = opened()
    for number in range(300):
        tree.lstat(b"/code")
        (home / ".new").write_text("x")
        (home / ".new").rename(home / ".bashrc")
        tree._walk.look_again()
        path = b"/code/%d" % number
        tree.open(path, WRITE, 0o644).close()
        tree.unlink(path)
    assert len(tree._walk._policy._identities._pins) < (20 if sys.platform == "linux" else 300)


def test_profiles_that_are_links(opened: Callable[..., Tree], home: Path) -> None:
    """A folder of dotfiles with links to it, as stow makes them."""
    dots = home / "code" / "dots"
    (dots / "config" / "gcloud").mkdir(parents=True)
    (home / ".bashrc").rename(dots / "bashrc")
    (home / ".bashrc").symlink_to("code/dots/bashrc")
    (home / "short").symlink_to("code/dots")
    (home / ".zshrc").symlink_to("short/missing")
    (home / ".config").rename(home / "was")
    (home / ".config").symlink_to("code/dots/config")
    (home / ".ssh").rename(dots / "ssh")
    (home / ".ssh").symlink_to("code/dots/ssh")
    tree = opened()
    assert names(tree, b"/code/dots") == [b"bashrc", b"config"]
    assert names(tree, b"/code/dots/config") == []
    for change in (
        lambda: tree.open(b"/code/dots/bashrc", os.O_WRONLY, 0),
        lambda: tree.unlink(b"/code/dots/bashrc"),
        lambda: tree.rename(b"/code/f", b"/code/dots/bashrc", True),
        lambda: tree.open(b"/code/dots/missing", WRITE, 0o644),
        lambda: tree.unlink(b"/.bashrc"),
        lambda: tree.mkdir(b"/code/dots/config/fish", 0o755),
        lambda: tree.rename(b"/code/f", b"/code/dots/config/gcloud", True),
        lambda: tree.mkdir(b"/code/dots/ssh", 0o755),
    ):
        with refused(errno.EACCES):
            change()
    for path in (b"/code", b"/code/dots", b"/.config", b"/code/dots/config", b"/short"):
        with refused(errno.EBUSY):
            tree.rename(path, b"/moved", True)
    with refused(errno.EBUSY):
        tree.unlink(b"/.config")
    tree.rename(b"/code/f", b"/code/dots/f", False)


def test_a_place_beside_the_share_that_is_a_link_into_it(home: Path) -> None:
    (home / ".ssh").rename(home / "code" / "ssh")
    (home / ".ssh").symlink_to("code/ssh")
    code = home / "code"
    tree = Tree(code, Policy(code, hidden=[home / ".ssh", home / ".netrc"]), Nothing())
    assert names(tree, b"/") == [b"f"]
    tree.close()


def test_given_places_come_first(opened: Callable[..., Tree], home: Path) -> None:
    (home / ".aws").mkdir()
    (home / ".aws" / "config").write_text("aws")
    tree = opened(given=[(home / ".aws", True), (".ssh/known_hosts", False), (".local/bin", False), ("code", True)])
    assert tree.lstat(b"/.aws/config").size == 3
    for change in (
        lambda: tree.open(b"/.aws/config", os.O_WRONLY, 0),
        lambda: tree.open(b"/.aws/new", WRITE, 0o644),
        lambda: tree.open(b"/code/f", os.O_WRONLY, 0),
        lambda: tree.link(b"/code/f", b"/g"),
        lambda: tree.rename(b"/code/f", b"/g", True),
        lambda: tree.rename(b"/code", b"/g", True),
    ):
        with refused(errno.EROFS):
            change()
    assert names(tree, b"/.ssh") == [b"known_hosts"]
    for path in (b"/.ssh/id", b"/.ssh/sub/deep"):
        with refused(errno.ENOENT):
            tree.lstat(path)
    with refused(errno.EACCES):
        tree.open(b"/.ssh/new", WRITE, 0o644)
    tree.open(b"/.ssh/known_hosts", os.O_WRONLY | os.O_TRUNC, 0).close()
    with refused(errno.EACCES):
        tree.unlink(b"/.ssh/known_hosts")
    tree.open(b"/.local/bin/x", WRITE, 0o755).close()
    with refused(errno.EBUSY):
        tree.rename(b"/.local/bin", b"/b", False)


def test_guarded_in_hidden_is_hidden(opened: Callable[..., Tree], home: Path) -> None:
    guarded = [*GUARDED, ".ssh/authorized_keys"]
    tree = opened(protected=guarded)
    with refused(errno.ENOENT):
        tree.lstat(b"/.ssh")
    with refused(errno.ENOENT):
        tree.open(b"/.ssh/authorized_keys", WRITE, 0o600)
    tree = opened(protected=guarded, given=[(".ssh", False)])
    tree.open(b"/.ssh/id", os.O_RDWR, 0).close()
    with refused(errno.EACCES):
        tree.open(b"/.ssh/authorized_keys", WRITE, 0o600)
    tree = opened(protected=guarded, given=[(".ssh", True)])
    with refused(errno.EROFS):
        tree.open(b"/.ssh/authorized_keys", WRITE, 0o600)


def test_a_hidden_folder_that_the_host_puts_in_a_known_way(opened: Callable[..., Tree], home: Path) -> None:
    """Judged a moment ago, and now another folder: hidden ones are known at once, not at the next look."""
    tree = opened()
    (home / "code" / "sub").mkdir()
    (home / "code" / "sub" / "id").write_text("free")
    assert tree.lstat(b"/code/sub/id").size == 4
    (home / "code" / "sub").rename(home / "was")
    (home / ".ssh").rename(home / "code" / "sub")
    with refused(errno.ENOENT):
        tree.lstat(b"/code/sub/id")
    with refused(errno.ENOENT):
        tree.lstat(b"/code/sub/sub/deep")


@pytest.mark.parametrize("system", ["linux", "macos", "windows"])
def test_the_usual_places(home: Path, system: str) -> None:
    """A list that has a place twice, or one in another, is a mistake; and all are looked at in little time."""
    hidden, guarded = defaults(system)
    places = [*hidden, *guarded]
    assert len(set(places)) == len(places)
    assert not [place for place in places if place.startswith("/") or place != os.path.normpath(place)]
    for place in places:
        holders = [other for other in hidden if place.startswith(other + "/")]
        assert not holders or place.startswith(".ssh/"), place
    tree = Tree(home, Policy(home, hidden=hidden, protected=guarded), Nothing())
    try:
        assert b".ssh" not in names(tree, b"/")
        for place in places:
            with pytest.raises(OSError):
                tree.open(b"/" + place.encode(), WRITE, 0o644)
        for free in (b"/src", b"/.cache", b"/.npm", b"/Documents/x"):
            tree.mkdir(b"/Documents", 0o755) if free.startswith(b"/Documents") else None
            tree.mkdir(free, 0o755)
    finally:
        tree.close()


def test_a_read_only_share(opened: Callable[..., Tree], home: Path) -> None:
    tree = opened(read_only=True, given=[("code", False)])
    (home / "f").write_text("f")
    for change in (
        lambda: tree.open(b"/f", os.O_WRONLY, 0),
        lambda: tree.open(b"/f", os.O_RDONLY | os.O_TRUNC, 0),
        lambda: tree.open(b"/new", WRITE, 0o644),
        lambda: tree.mkdir(b"/new", 0o755),
        lambda: tree.symlink(b"f", b"/new"),
        lambda: tree.unlink(b"/f"),
        lambda: tree.rename(b"/f", b"/g", True),
        lambda: tree.rename(b"/f", b"/code/g", True),
        lambda: tree.link(b"/f", b"/code/g"),
        lambda: tree.change(b"/f", Change(uid=0), follow=False),
        lambda: tree.change(b"/", Change(mode=0o777), follow=False),
        lambda: tree.open(b"/.bashrc", os.O_WRONLY, 0),
    ):
        with refused(errno.EROFS):
            change()
    tree.open(b"/f", os.O_RDONLY | os.O_CREAT, 0).close()
    tree.open(b"/code/new", WRITE, 0o644).close()
    with refused(errno.ENOENT):
        tree.lstat(b"/.ssh")


@pytest.mark.parametrize(
    ("hidden", "asked"),
    [
        (".ssh", ".SSH"),
        (".ssh", ".Ssh"),
        (".ssh", ".s\u200csh"),
        (".ssh", ".\u017fsh"),
        ("Geheim\u00e9", "geheime\u0301"),
        ("Geheime\u0301", "GEHEIM\u00c9"),
    ],
)
def test_variants_of_a_name(opened: Callable[..., Tree], hidden: str, asked: str) -> None:
    tree = opened(hidden=[hidden], names=Folded())
    with refused(errno.EACCES):
        tree.mkdir(b"/" + asked.encode(), 0o755)
    with refused(errno.EACCES):
        tree.rename(b"/code", b"/" + asked.encode(), True)
    exact = opened(hidden=[hidden], names=Exact())
    exact.mkdir(b"/" + asked.encode(), 0o755)
    with refused(errno.ENOENT):
        tree.lstat(b"/" + asked.encode())


def test_what_the_proxy_asks(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(home))
    (home / ".aws").mkdir()
    policy = Policy(home, hidden=HIDDEN, protected=GUARDED, given=[(".aws", True)])
    (home / "code" / "keys").symlink_to("../.ssh")
    (home / ".ssh" / "out").symlink_to("../code")
    for path, place in (
        (".ssh", "~/.ssh"),
        (".ssh/sub/deep", "~/.ssh"),
        (".ssh/none", "~/.ssh"),
        (".config/gcloud/x", "~/.config/gcloud"),
        ("code/keys/id", "~/.ssh"),
        (".ssh/out", "~/.ssh"),
        ("code/../.ssh", "~/.ssh"),
        (".bashrc", None),
        (".aws", None),
        ("code", None),
        (".", None),
        ("..", None),
        ("none/at/all", None),
    ):
        assert policy.name_of(str(home / path)) == place, path
        assert policy.hides(str(home / path)) == (place is not None), path
    partly = Policy(home, hidden=HIDDEN, given=[(".ssh/known_hosts", True)])
    assert partly.name_of(str(home / ".ssh")) == "~/.ssh"
    assert not partly.hides(str(home / ".ssh" / "known_hosts"))
    (home / ".ssh").rename(home / "code" / "renamed")
    policy.look_again()
    assert policy.hides(str(home / "code" / "renamed" / "id"))
    assert not policy.hides("/etc")
    # The share by another name.
    (tmp_path / "link").symlink_to(home)
    assert Policy(tmp_path / "link", hidden=HIDDEN).hides(str(tmp_path / "link" / ".netrc"))


def test_how_names_are_compared_is_seen_without_writing(tmp_path: Path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        assert comparer(held).exact == (sys.platform != "darwin")
        (tmp_path / "Name").touch()
        before = os.stat(tmp_path).st_mtime_ns
        assert comparer(held).exact != (tmp_path / "nAME").exists()
        assert os.stat(tmp_path).st_mtime_ns == before
    finally:
        os.close(held)
