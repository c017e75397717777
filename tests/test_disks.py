"""Data disks, made by the real qemu-img."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from launcher import disks
from launcher.errors import MissingOnHost, Refused, WherryError

GIB = 1 << 30


@pytest.fixture(scope="module")
def img() -> Path:
    found = shutil.which("qemu-img")
    if found is None:
        pytest.skip("no qemu-img here")
    return Path(found)


def test_a_new_disk_is_sparse_private_and_as_large_as_asked(tmp_path: Path, img: Path) -> None:
    path = tmp_path / "data.qcow2"
    disks.create(path, 100 * GIB, img)
    assert path.read_bytes()[:4] == b"QFI\xfb"
    assert path.stat().st_mode & 0o777 == 0o600
    found = disks.info(path, img)
    assert found.virtual_size == 100 * GIB
    assert found.actual_size < 1 << 20
    assert os.listdir(tmp_path) == ["data.qcow2"]


def test_in_a_folder_whose_name_looks_like_a_protocol(tmp_path: Path, img: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nbd:x,y é").mkdir()
    monkeypatch.chdir(tmp_path)
    path = Path("nbd:x,y é", "data.qcow2")
    disks.create(path, GIB, img)
    assert disks.info(path, img).virtual_size == GIB


@pytest.mark.parametrize("kind", ["file", "empty", "link", "folder"])
def test_nothing_is_overwritten(tmp_path: Path, img: Path, kind: str) -> None:
    path = tmp_path / "data.qcow2"
    match kind:
        case "file":
            path.write_bytes(b"precious")
        case "empty":
            path.touch()
        case "link":
            path.symlink_to(tmp_path / "nowhere")
        case "folder":
            path.mkdir()
    before = path.lstat()
    with pytest.raises(Refused, match="never overwritten"):
        disks.create(path, GIB, img)
    assert path.lstat() == before
    assert os.listdir(tmp_path) == ["data.qcow2"]


def test_something_that_appears_while_the_disk_is_made_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "data.qcow2"
    rival = tmp_path / "img"
    rival.write_text(f"#!/bin/sh\necho precious > {path}\n")
    rival.chmod(0o755)
    with pytest.raises(Refused):
        disks.create(path, GIB, rival)
    assert path.read_text() == "precious\n"
    assert sorted(os.listdir(tmp_path)) == ["data.qcow2", "img"]


def test_a_failure_leaves_nothing_and_says_why(tmp_path: Path, img: Path) -> None:
    with pytest.raises(WherryError) as caught:
        disks.create(tmp_path / "data.qcow2", 1 << 62, img)
    assert caught.value.detail
    assert os.listdir(tmp_path) == []


def test_info_of_what_is_no_disk(tmp_path: Path, img: Path) -> None:
    path = tmp_path / "data.qcow2"
    with pytest.raises(WherryError, match="cannot be read as a disk"):
        disks.info(path, img)
    path.write_bytes(b"not a disk" * 1000)
    with pytest.raises(WherryError, match="cannot be read as a disk") as caught:
        disks.info(path, img)
    assert "qcow2" in (caught.value.detail or "")


def test_a_qemu_img_that_is_not_there_is_said_as_that(tmp_path: Path) -> None:
    with pytest.raises(MissingOnHost):
        disks.info(tmp_path / "data.qcow2", tmp_path / "qemu-img")
