"""disk: info, grow, reclaim, backup, restore, as far as no machine has to start for it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher import disks, host
from launcher.config import GIB, MachineConfig
from launcher.machine import storage
from launcher.store import MachineDir
from tests.conftest import Said
from tests.fakes import FakeKeeper, make_machine
from tests.test_disks import qemu_io

Wherry = Callable[..., Said]
IMG = Path(shutil.which("qemu-img") or "qemu-img")
MIB = 1 << 20
pytestmark = pytest.mark.skipif(shutil.which("qemu-io") is None, reason="needs QEMU's tools")


@pytest.fixture(autouse=True)
def never_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are made block by block, also where the file system of the test could share them."""
    monkeypatch.setattr(host.current(), "clone", lambda _source, _target: False)


def fill(disk: Path, pattern: int, size: int = GIB) -> None:
    """A disk as a machine leaves it: something in it, and the header in its last 4 KiB."""
    disk.unlink(missing_ok=True)
    disks.create(disk, size, IMG)
    header = disk.with_name("header")
    header.write_bytes(b"wherry data disk, layout 1\n".ljust(4096, b"\0"))
    qemu_io(disk, f"write -P {pattern} 100M 10M", f"write -s {header} {size - 4096} 4096")
    header.unlink()


def holds(disk: Path, pattern: int) -> None:
    qemu_io(disk, f"read -P {pattern} 100M 10M", "read -P 0 200M 10M")


@pytest.fixture
def directory(home: Path) -> MachineDir:
    made = make_machine()
    fill(made.data_disk, 1)
    made.write_config(made.read_config().changed(disk=GIB))
    return made


@pytest.fixture
def used(keeper: FakeKeeper) -> FakeKeeper:
    """A machine that runs, with such a disk."""
    fill(keeper.directory.data_disk, 1)
    return keeper


def answer(said: Said) -> dict[str, Any]:
    assert said.code == 0, said.err
    data: dict[str, Any] = json.loads(said.out)["data"]
    return data


def test_info(wherry: Wherry, directory: MachineDir) -> None:
    (directory.path / "data-before-0.1.0.qcow2").write_bytes(b"x" * MIB)
    found = answer(wherry("disk", "info", "--json"))
    assert found["size"] == GIB and 10 * MIB < found["taken"] < 12 * MIB and found["used"] is None
    assert found["copies"] == [["data-before-0.1.0.qcow2", MIB]]
    said = wherry("disk", "info").out
    assert "takes     10.9 MB here" in said and "1 GB; how much of it is used can be told while the machine runs" in said
    disks.take_snapshot(directory.data_disk, IMG)
    assert "wherry repair --forget default" in wherry("disk", "info").out
    assert wherry("disk", "info", "none").code == 3


def test_info_of_a_machine_that_runs(wherry: Wherry, used: FakeKeeper) -> None:
    used.disk = (1000 * MIB, 400 * MIB)
    assert answer(wherry("disk", "info", "--json"))["used"] == 600 * MIB
    assert "1 GB, 629 MB of it used, 419 MB free" in wherry("disk", "info").out
    used.storage["info"] = {"total": 900 * MIB, "free": 800 * MIB}  # what it says itself is newer than what was heard
    assert answer(wherry("disk", "info", "--json"))["used"] == 100 * MIB


def test_a_disk_at_rest_grows(wherry: Wherry, directory: MachineDir) -> None:
    said = wherry("disk", "grow", "2G")
    assert said.code == 0 and "follows at the next start" in said.err
    assert disks.info(directory.data_disk, IMG).virtual_size == 2 * GIB == directory.read_config().disk
    holds(directory.data_disk, 1)
    refused = wherry("disk", "grow", "default", "1G")
    assert refused.code == 6 and "the disk has 2G, and a disk only grows" in refused.err
    assert wherry("disk", "grow", "default", "2G").code == 0  # as it is already
    assert directory.read_config().disk == 2 * GIB
    assert wherry("disk", "grow", "100").code == 2
    assert wherry("disk", "grow", "2.1G").code == 2
    assert wherry("disk", "grow", "a", "b", "3G").code == 2
    assert wherry("disk", "grow").code == 2


def test_a_disk_in_use_grows_by_its_keeper(wherry: Wherry, used: FakeKeeper) -> None:
    used.storage["grow"] = {"size": 200 * GIB, "total": 190 * GIB}
    said = wherry("disk", "grow", "200G")
    assert said.code == 0 and "has 200 GB, and the file system in it 190 GB" in said.err
    assert used.requests[-1]["action"] == "grow" and used.requests[-1]["size"] == 200 * GIB
    assert used.directory.read_config().disk == 200 * GIB


def test_reclaim(wherry: Wherry, used: FakeKeeper) -> None:
    used.storage["reclaim"] = {"before": 3 * GIB, "after": GIB, "trimmed": 90 * GIB}
    assert answer(wherry("disk", "reclaim", "--json"))["given_back"] == 2 * GIB
    assert "2.1 GB given back; the disk takes 1.1 GB here." in wherry("disk", "reclaim").err


def test_reclaim_is_asked_of_the_guest(wherry: Wherry, directory: MachineDir) -> None:
    said = wherry("disk", "reclaim")
    assert said.code == 3 and "wherry up default" in said.err


def test_there_and_back(wherry: Wherry, directory: MachineDir, tmp_path: Path) -> None:
    file = tmp_path / "all: of it"
    made = answer(wherry("disk", "backup", str(file), "--json"))
    assert made["file"] == str(file) and made["size"] < 12 * MIB and not made["running"]
    assert file.stat().st_mode & 0o777 == 0o600 and not list(tmp_path.glob(".all*"))
    holds(file, 1)
    again = wherry("disk", "backup", str(file))
    assert again.code == 6 and "is there already" in again.err
    fill(directory.data_disk, 2, 2 * GIB)
    directory.write_config(directory.read_config().changed(disk=2 * GIB))
    before = directory.data_disk.read_bytes()
    asked = wherry("disk", "restore", str(file))
    assert asked.code == 6 and "nobody to ask" in asked.err and f"--yes default '{file}'" in asked.err
    assert directory.data_disk.read_bytes() == before
    assert wherry("disk", "restore", "--yes", str(file)).code == 0
    holds(directory.data_disk, 1)
    assert directory.data_disk.stat().st_mode & 0o777 == 0o600
    assert directory.read_config().disk == GIB == disks.info(directory.data_disk, IMG).virtual_size
    directory.data_disk.unlink()
    assert wherry("disk", "restore", str(file)).code == 0  # nothing goes
    holds(directory.data_disk, 1)


def test_a_killed_backup_leaves_nothing_in_the_way(wherry: Wherry, directory: MachineDir, tmp_path: Path) -> None:
    left = tmp_path / ".kept.999999999-0123abcd"
    other = tmp_path / ".other.999999999-0123abcd"
    left.touch()
    other.touch()
    assert wherry("disk", "backup", str(tmp_path / "kept")).code == 0
    assert not left.exists() and other.exists()


def test_a_killed_restore_leaves_nothing_in_the_way(wherry: Wherry, directory: MachineDir, tmp_path: Path) -> None:
    file, left = tmp_path / "kept", directory.path / ".data.qcow2.999999999-0123abcd"
    assert wherry("disk", "backup", str(file)).code == 0
    left.touch()
    assert wherry("disk", "restore", "--yes", str(file)).code == 0
    assert not left.exists()


def test_a_backup_that_was_cut_short_is_not_restored(wherry: Wherry, directory: MachineDir, tmp_path: Path) -> None:
    file, before = tmp_path / "kept", directory.data_disk.read_bytes()
    # The header first, so that what is cut off is none of it.
    directory.data_disk.unlink()
    fill(directory.data_disk, 3)
    shutil.copy(directory.data_disk, file)
    qemu_io(file, "write -P 4 300M 10M")
    whole = file.stat().st_size
    directory.data_disk.write_bytes(before)
    for size in (whole - 5 * MIB, 100_000, 60):
        os.truncate(file, size)
        said = wherry("disk", "restore", "--yes", str(file))
        assert said.code in (1, 6) and directory.data_disk.read_bytes() == before, size
        assert size < MIB or "was cut short, or is damaged" in said.err


def test_places_that_are_none(wherry: Wherry, directory: MachineDir, tmp_path: Path) -> None:
    assert wherry("disk", "backup", str(tmp_path / "no" / "file")).code == 2
    assert wherry("disk", "backup", str(tmp_path)).code == 2
    inside = wherry("disk", "backup", str(directory.path / "copy"))
    assert inside.code == 6 and "deleted with it" in inside.err
    assert wherry("disk", "restore", str(tmp_path / "none")).code == 2
    assert "is a folder" in wherry("disk", "restore", str(tmp_path)).err
    assert wherry("disk", "restore", str(directory.data_disk)).code == 2


def test_a_name_is_not_taken_for_a_file(
    wherry: Wherry, directory: MachineDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in ("backup", "restore"):
        said = wherry("disk", word, "default")
        assert said.code == 2 and f"wherry disk {word} default FILE" in said.err
    assert wherry("disk", "backup", "default", "default").code == 0 and (tmp_path / "default").exists()


def test_a_disk_that_was_never_used_is_not_backed_up(wherry: Wherry, directory: MachineDir, tmp_path: Path) -> None:
    directory.data_disk.unlink()
    disks.create(directory.data_disk, GIB, IMG)
    said = wherry("disk", "backup", str(tmp_path / "kept"))
    assert said.code == 6 and "has never been started" in said.err and not (tmp_path / "kept").exists()


def test_a_disk_that_is_gone(wherry: Wherry, directory: MachineDir, tmp_path: Path) -> None:
    directory.data_disk.unlink()
    for words in (["info"], ["reclaim"], ["grow", "9G"], ["backup", str(tmp_path / "x")]):
        said = wherry("disk", *words)
        assert said.code == 1 and "is gone" in said.err and "wherry disk restore default FILE" in said.err, words


def test_what_is_no_disk_of_ours_is_not_restored(wherry: Wherry, directory: MachineDir, tmp_path: Path) -> None:
    before = directory.data_disk.read_bytes()
    text, plain = tmp_path / "text", tmp_path / "plain"
    text.write_text("precious")
    disks.create(plain, GIB, IMG)
    behind = tmp_path / "behind"
    os.system(f"qemu-img create -q -f qcow2 -F raw -b /etc/hostname {behind} 1G")
    for file, words in ((text, "no qcow2"), (plain, "holds no data"), (behind, "backing file")):
        said = wherry("disk", "restore", "--yes", str(file))
        assert said.code == 6 and words in said.err
    assert directory.data_disk.read_bytes() == before


def test_a_full_computer_is_named_and_nothing_is_lost(
    wherry: Wherry, directory: MachineDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kept"
    assert wherry("disk", "backup", str(file)).code == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(10**9, 10**9, 0))  # type: ignore[attr-defined]
    for words in (["backup", str(tmp_path / "more")], ["restore", "--yes", str(file)]):
        said = wherry("disk", *words)
        assert said.code == 1 and "0.0 GB are free in" in said.err and "then try again" in said.err
    holds(directory.data_disk, 1)
    assert not (tmp_path / "more").exists()


def test_a_machine_that_runs(wherry: Wherry, used: FakeKeeper, tmp_path: Path) -> None:
    file = tmp_path / "kept"
    assert answer(wherry("disk", "backup", str(file), "--json"))["running"]
    request = used.requests[-1]
    # The keeper of this test copies nothing; where it was to copy to is what appeared.
    assert request["action"] == "backup" and Path(request["file"]).parent == tmp_path and not Path(request["file"]).exists()
    assert disks.info(file, IMG).virtual_size == GIB
    said = wherry("disk", "restore", "--yes", str(file))
    assert said.code == 6 and "is running" in said.err


def test_an_older_keeper(wherry: Wherry, used: FakeKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.errors import Usage

    def refuse(*_: object) -> None:
        raise Usage("the keeper does not know 'disk'.")

    monkeypatch.setattr(storage.control, "events", refuse)
    said = wherry("disk", "reclaim")
    assert said.code == 1 and "too old" in said.err and "wherry restart default" in said.err


def test_up_names_the_way_to_a_larger_disk(wherry: Wherry, directory: MachineDir) -> None:
    said = wherry("up", "--disk", "7G")
    assert said.code == 2 and "wherry disk grow default SIZE" in said.err
    assert MachineConfig.disk != 7 * GIB
