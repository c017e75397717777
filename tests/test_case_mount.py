"""A share on a real file system that does not tell case: NTFS as its driver for Linux mounts it for Windows' habits.

It shows all names in small letters. What depends on more is in test_sftp_case.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("mounts are of Linux", allow_module_level=True)

from launcher import sharing
from launcher.host import macos
from launcher.sftp.names import Folded, comparer
from launcher.sftp.policy import Policy
from launcher.sftp.remembered import Nothing
from launcher.sftp.tree import Tree
from tests import test_sftp_case as cases

_PROGRAMS = ("mkntfs", "lowntfs-3g", "umount")
_SIZE = 32 << 20


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Skipped where it cannot be mounted: root's, and the driver's package."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    tools = {name: shutil.which(name, path=path) for name in _PROGRAMS}
    if missing := [name for name, found in tools.items() if not found]:
        pytest.skip(f"{', '.join(missing)}: of ntfs-3g")
    base = tmp_path_factory.mktemp("ntfs")
    image, place = base / "image", base / "place"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(_SIZE)
    subprocess.run([tools["mkntfs"], "-q", "-F", image], check=True, capture_output=True)
    done = subprocess.run(
        [tools["lowntfs-3g"], image, place, "-o", "ignore_case,windows_names"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"it cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run([tools["umount"], "-l", place], check=True)  # the driver lets go of files a moment later


@pytest.fixture
def root(mounted: Path, request: pytest.FixtureRequest) -> Path:
    made = mounted / request.node.name.lower()
    (made / "dir").mkdir(parents=True)
    (made / ".ssh").mkdir()
    (made / "readme").write_bytes(b"kept")
    return made


@pytest.fixture
def tree(root: Path) -> Iterator[Tree]:
    made = Tree(root, Policy(root, hidden=[".ssh"], names=Folded()), Nothing())
    yield made
    made.close()


def test_the_comparison_is_seen(root: Path) -> None:
    held = os.open(root, os.O_RDONLY)
    try:
        assert not comparer(held).exact
    finally:
        os.close(held)


def test_another_spelling_is_not_there_and_cannot_be_made(tree: Tree, root: Path) -> None:
    cases.test_another_spelling_is_not_there_and_cannot_be_made(tree, root)


def test_hidden_in_every_case(tree: Tree, root: Path) -> None:
    cases.test_hidden_in_every_case(tree, root)


def test_names_that_the_file_system_refuses(tree: Tree, root: Path) -> None:
    for name in (b"/a:b", b"/con", b"/trail.", b"/q?"):
        with cases.refused(errno.EINVAL):
            cases.put(tree, name, b"x")
    assert {path.name for path in root.iterdir()} == {"readme", "dir", ".ssh"}


def test_one_folder_in_any_case_is_one_share(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the file system says (samefile), not by text alone."""
    monkeypatch.setattr(sharing.host.current(), "folded", macos.folded)
    share = sharing.Share("x", str(root), str(root), (), False)
    upper = str(root.parent / root.name.upper() / "DIR")
    assert sharing.find([share], upper) == share
    assert sharing.in_guest(share, upper) == f"{root}/DIR"
    other = root.parent.parent / root.name.upper()  # beside the mount cases are told apart
    assert sharing.find([share], str(other)) is None
