"""Data disks, made by the real qemu-img."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from launcher import disks
from launcher.disks import Holds
from launcher.errors import MissingOnHost, Refused, WherryError
from tests.systems import not_on_windows

GIB = 1 << 30


@pytest.fixture(scope="module")
def img() -> Path:
    found = shutil.which("qemu-img")
    if found is None:
        pytest.skip("no qemu-img here")
    return Path(found)


@not_on_windows("modes")
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


@not_on_windows("links need a right that users lack")
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


@not_on_windows("scripts are no programs")
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


def qemu_io(path: Path, *commands: str) -> None:
    words = ["qemu-io", "-f", "qcow2", *(word for command in commands for word in ("-c", command)), f"file:{path.name}"]
    subprocess.run(words, cwd=path.parent, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def new(tmp_path: Path, img: Path) -> Path:
    path = tmp_path / "data.qcow2"
    disks.create(path, 100 * GIB, img)
    return path


def test_a_new_disk_holds_nothing(new: Path, img: Path) -> None:
    assert disks.examine(new, img) is Holds.NOTHING


@not_on_windows("qemu-io is not in the wheel")
@pytest.mark.parametrize("offset", ["0", "50G", "107374181888"])
def test_one_sector_anywhere_is_seen(new: Path, img: Path, offset: str) -> None:
    qemu_io(new, f"write {offset} 512")
    before = new.read_bytes()
    assert disks.examine(new, img) is Holds.LITTLE
    assert new.read_bytes() == before


@not_on_windows("qemu-io is not in the wheel")
def test_zeroes_that_were_written_or_given_back_are_nothing(new: Path, img: Path) -> None:
    qemu_io(new, "write -z 10G 1M", "write -z -u 20G 1M")
    assert disks.examine(new, img) is Holds.NOTHING


@not_on_windows("qemu-io is not in the wheel")
def test_more_than_a_formatting_leaves(new: Path, img: Path) -> None:
    qemu_io(new, *(f"write {place}G 20M" for place in (1, 30, 60, 99)))
    assert disks.examine(new, img) is Holds.MUCH


def test_what_mkfs_leaves_is_little(tmp_path: Path, img: Path) -> None:
    """The bound is for this; measured here with the program that the guest uses, on disks of several sizes."""
    mkfs = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")
    if mkfs is None:
        pytest.skip("needs e2fsprogs")
    for size in (GIB, 100 * GIB, 2048 * GIB):
        raw, path = tmp_path / "raw", tmp_path / "made.qcow2"
        with raw.open("wb") as file:
            file.truncate(size)
        options = ["-q", "-F", "-m", "1", "-J", "size=128", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"]
        subprocess.run([mkfs, *options, raw, f"{(size >> 10) - 1024}k"], check=True)
        subprocess.run([img, "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
        assert disks.examine(path, img) is Holds.LITTLE
        raw.unlink()


def test_what_a_snapshot_keeps_counts(new: Path, img: Path) -> None:
    assert disks.take_snapshot(new, img) is True
    assert disks.examine(new, img) is Holds.MUCH


@not_on_windows("qemu-io is not in the wheel")
def test_a_disk_goes_back_to_what_it_was(new: Path, img: Path) -> None:
    with pytest.raises(Refused, match="not kept"):
        disks.revert(new, img)
    qemu_io(new, "write -P 1 5G 64k")
    assert disks.take_snapshot(new, img) is True
    qemu_io(new, "write -P 2 5G 64k")
    assert disks.take_snapshot(new, img) is False  # the first one is the true one
    disks.revert(new, img)
    qemu_io(new, "read -P 1 5G 64k")
    assert disks.drop_snapshot(new, img) is True
    assert disks.drop_snapshot(new, img) is False
    assert disks.snapshots(new, img) == []
    qemu_io(new, "read -P 1 5G 64k")


@pytest.mark.parametrize("kind", ["raw", "empty", "vmdk", "backing", "data-file", "encrypted", "gone", "folder"])
def test_a_disk_that_is_not_of_our_making_is_refused_untouched(tmp_path: Path, img: Path, kind: str) -> None:
    path, other = tmp_path / "data.qcow2", tmp_path / "other"

    def make(*words: str | Path) -> None:
        subprocess.run([img, "create", "-q", *words], cwd=tmp_path, check=True)

    match kind:
        case "raw":
            path.write_bytes(b"\0" * (1 << 20))
        case "empty":
            path.touch()
        case "vmdk":
            make("-f", "vmdk", path, "1G")
        case "backing":
            make("-f", "raw", other, "1G")
            make("-f", "qcow2", "-b", other, "-F", "raw", path)
        case "data-file":
            make("-f", "qcow2", "-o", f"data_file={other},data_file_raw=on", path, "1G")
        case "encrypted":
            words = ["--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s"]
            make("-f", "qcow2", *words, path, "1G")
        case "folder":
            path.mkdir()
    before = path.read_bytes() if path.is_file() else None
    words = {
        "gone": "is gone",
        "raw": "no qcow2",
        "backing": "backing file",
        "data-file": "another file",
        "encrypted": "encrypted",
    }
    with pytest.raises(WherryError, match=words.get(kind, "no qcow2|cannot be read")) as caught:
        disks.examine(path, img)
    assert isinstance(caught.value, Refused) or kind == "folder"
    assert (path.read_bytes() if path.is_file() else None) == before


@not_on_windows("QEMU locks no images")
def test_a_disk_that_another_program_uses_is_refused(new: Path, img: Path) -> None:
    words = ["qemu-io", "-f", "qcow2", new.name]
    with subprocess.Popen(words, cwd=new.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None and other.stdout is not None
        other.stdin.write(b"length\n")
        other.stdin.flush()
        assert other.stdout.readline()
        with pytest.raises(Refused, match="another program uses it"):
            disks.examine(new, img)
        other.communicate(b"quit\n")


def test_a_drive_without_space_and_one_that_is_read_only(tmp_path: Path, img: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", small]
    if os.name == "nt" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs root, to mount a small drive")
    try:
        with pytest.raises(WherryError, match="no space left") as caught:
            disks.create(small / "data.qcow2", GIB, img)
        assert caught.value.hint == "Make space, then try again."
        assert os.listdir(small) == []
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        with pytest.raises(WherryError, match="read-only"):
            disks.create(small / "data.qcow2", GIB, img)
    finally:
        subprocess.run(["umount", small], check=True)
