"""repair: every kind of damage to a machine's folder, on real files and real qcow2 disks; the data stays."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import disks, files, host, images, qcow, readiness, store
from launcher.config import GIB, MachineConfig
from launcher.errors import NoSuchMachine, Refused, WherryError
from launcher.images import cache, manifest
from launcher.machine import repair as module
from launcher.machine.inspect import list_machines, status
from launcher.machine.repair import Repair
from launcher.report import SilentReporter
from launcher.ssh import keys
from launcher.state import State
from launcher.store import MachineDir
from tests.conftest import Said
from tests.fakes import FakeKeeper
from tests.tinyiso import iso_bytes

QUIET = SilentReporter()
IMG = shutil.which("qemu-img")
pytestmark = pytest.mark.skipif(IMG is None, reason="qemu-img is missing")
ISO = "a" * 64


@pytest.fixture
def cached(home: Path) -> str:
    """An ISO of the size that its manifest tells; nothing here looks into it."""
    folder = cache.folder() / ISO
    folder.mkdir(parents=True)
    (folder / cache.ISO).write_bytes(b"iso")
    cache.write_json(folder / cache.MANIFEST, {"architecture": host.native_arch(), "version": "0", "size": 3})
    cache.write_json(folder / cache.ORIGIN, {"imported": 1.0})
    return ISO


@pytest.fixture
def machine(cached: str) -> MachineDir:
    wanted = MachineConfig(arch=host.native_arch(), cpus=3, memory=2 * GIB, iso=cached, disk=5 * GIB, stop_seconds=77)

    def fill(made: MachineDir) -> None:
        keys.make_keys(made)
        assert IMG is not None
        disks.create(made.data_disk, wanted.disk, Path(IMG))

    return store.create("default", wanted, fill)


def mend(**options: object) -> Repair:
    """Repair, after a dry run that changed nothing and found the same."""
    directory = store.machine("default")
    before = tree(directory.path)
    dry = module.repair("default", QUIET, dry_run=True)
    assert tree(directory.path) == before
    done = module.repair("default", QUIET, **options)  # type: ignore[arg-type]
    assert [step.found for step in done.steps] == [step.found for step in dry.steps]
    return done


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not path.name.startswith("lock")
    }


def test_a_whole_machine_is_left_as_it_is(machine: MachineDir) -> None:
    before = tree(machine.path)
    assert mend() == Repair([], "stopped")
    assert tree(machine.path) == before
    with pytest.raises(NoSuchMachine):
        module.repair("other", QUIET)


def damage_file(file: Path, damage: str) -> None:
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "zeros": bytes(4096), "half": content[: len(content) // 2]}[damage])


@pytest.mark.parametrize("good", [False, True])
@pytest.mark.parametrize("damage", ["empty", "zeros", "half", "gone"])
def test_a_damaged_config(machine: MachineDir, damage: str, good: bool) -> None:
    before = machine.read_config()
    if good:
        machine.good_config_file.write_bytes(machine.config_file.read_bytes())
    damage_file(machine.config_file, damage)
    (listed,) = list_machines()
    assert (listed["status"], listed["next"].rpartition(", or: ")[2]) in (
        ("broken", "wherry repair"),
        ("broken", "wherry repair default"),
    )
    done = mend()
    assert done.whole
    now = machine.read_config()
    if good:
        assert now == before
    assert (now.disk, now.iso, now.arch) == (before.disk, before.iso, before.arch)
    assert status("default")["status"] == "stopped"
    assert mend().steps == []


def test_what_can_be_read_of_a_damaged_config_is_kept(machine: MachineDir) -> None:
    machine.good_config_file.write_bytes(machine.config_file.read_bytes())
    machine.config_file.write_text(
        'version = 1\ncpus = 4\nmemory = "3G\nstop_seconds = 5000\naccel = "tcg"\ncolour = 1\n'
        '[engine]\ndebug = true\nlabels = ["a=b"\nhosts = []\n\0\0'
    )
    text = machine.config_file.read_bytes()
    (step,) = mend().steps
    now = machine.read_config()
    assert (now.cpus, now.accel, now.engine) == (4, "tcg", {"debug": True})
    # What the damage hit is as at the last good start.
    assert (now.memory, now.stop_seconds) == (2 * GIB, 77)
    assert "accel, cpus, engine out of the damaged file" in step.done
    assert machine.config_file.with_name("machine.toml.damaged").read_bytes() == text


def test_a_config_of_a_newer_wherry_is_not_touched(machine: MachineDir) -> None:
    machine.config_file.write_text('version = 2\nwherry = "99.0"\n')
    with pytest.raises(Refused):
        module.repair("default", QUIET)
    assert machine.config_file.read_text() == 'version = 2\nwherry = "99.0"\n'


@pytest.mark.parametrize("damage", ["empty", "zeros", "half"])
def test_a_damaged_state(machine: MachineDir, damage: str) -> None:
    machine.state_file.write_text('{"version": 1, "status": "running", "token": "0123456789abcdef"}')
    damage_file(machine.state_file, damage)
    assert status("default")["status"] == "broken"
    done = mend()
    assert (done.whole, [step.done for step in done.steps]) == (True, ["written anew"])


@pytest.mark.parametrize("damage", ["empty", "zeros", "half", "gone"])
@pytest.mark.parametrize("name", ["id_ed25519", "host_ed25519", "host_ed25519.pub"])
def test_lost_keys_are_made_anew(machine: MachineDir, name: str, damage: str) -> None:
    private = machine.path / name.removesuffix(".pub")
    before = private.read_bytes()
    damage_file(machine.path / name, damage)
    if damage == "gone" and not name.endswith(".pub"):
        assert status("default")["problem"] == f"its key {name} is lost."
    done = mend()
    assert done.whole
    assert name in done.steps[0].found
    assert keys.damaged_keys(machine) == []
    assert (private.read_bytes() == before) == name.endswith(".pub")


def test_sockets_and_leftovers_of_killed_processes(machine: MachineDir) -> None:
    host.current().make_private(machine.run_dir)
    for path in (machine.control_socket, machine.qmp_socket):
        path.touch()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    half = [machine.path / f".state.json.{child.pid}-0011aabb", machine.path.parent / f".box.{child.pid}-0011aabb.deleted"]
    half[0].touch()
    half[1].mkdir()
    done = mend()
    assert done.whole
    assert len(done.steps) == 3
    assert not any(path.exists() for path in (*half, machine.run_dir))


def test_a_lost_disk_is_not_made_anew(machine: MachineDir) -> None:
    machine.data_disk.unlink()
    done = mend(agree=lambda _: True)
    assert not done.whole
    assert "--new-disk" in done.steps[0].done
    assert not machine.data_disk.exists()


def write(disk: Path, pattern: int) -> None:
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} 0 4M", disk], check=True, capture_output=True)


def reads(disk: Path, pattern: int, size: str = "4M") -> bool:
    done = subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", f"read -P {pattern} 0 {size}", disk], check=True, capture_output=True
    )
    return b"failed" not in done.stdout


def tables(disk: Path) -> tuple[int, int]:
    """Where the first L2 table and the first block of refcounts lie (QEMU docs/interop/qcow2.txt)."""
    with disk.open("rb") as file:
        head = file.read(104)
        file.seek(struct.unpack(">Q", head[40:48])[0])
        l2 = struct.unpack(">Q", file.read(8))[0] & 0x00FFFFFFFFFFFE00
        file.seek(struct.unpack(">Q", head[48:56])[0])
        return l2, struct.unpack(">Q", file.read(8))[0]


def poke(disk: Path, offset: int, data: bytes) -> None:
    with disk.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_leaks_are_given_back(machine: MachineDir) -> None:
    write(machine.data_disk, 5)
    l2, _ = tables(machine.data_disk)
    poke(machine.data_disk, l2 + 8 * 63, bytes(8))  # the last cluster is forgotten
    done = mend()
    assert done.whole
    assert "1 clusters" in done.steps[0].found
    assert reads(machine.data_disk, 5, "3M")
    assert mend().steps == []


def test_contradictions_are_mended_when_asked_and_after_a_copy(machine: MachineDir) -> None:
    write(machine.data_disk, 5)
    l2, refcounts = tables(machine.data_disk)
    data = l2 // 65536 + 1
    poke(machine.data_disk, refcounts + 2 * data, bytes(2))  # a cluster in use counts as free
    before = machine.data_disk.read_bytes()
    done = mend()
    assert not done.whole
    assert "wherry repair --yes" in done.steps[0].done
    assert machine.data_disk.read_bytes() == before
    asked = []
    done = mend(agree=lambda question: not asked.append(question))
    assert done.whole
    assert "contradict each other" in asked[0]
    copy = machine.path / "data.qcow2.damaged"
    assert copy.read_bytes() == before
    assert copy.stat().st_blocks * 512 < 6_000_000
    assert reads(machine.data_disk, 5)
    assert IMG is not None
    assert qcow.check(machine.data_disk, Path(IMG)).whole


def test_a_copy_that_is_there_already_is_not_written_over(machine: MachineDir) -> None:
    write(machine.data_disk, 5)
    l2, refcounts = tables(machine.data_disk)
    poke(machine.data_disk, refcounts + 2 * (l2 // 65536 + 1), bytes(2))
    (machine.path / "data.qcow2.damaged").write_text("precious")
    assert IMG is not None
    with pytest.raises(Refused, match="earlier repair"):
        qcow.mend_all(machine.data_disk, Path(IMG))
    assert (machine.path / "data.qcow2.damaged").read_text() == "precious"


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", os.urandom(70000)])
def test_a_disk_that_is_none_is_left_alone(machine: MachineDir, content: bytes) -> None:
    machine.data_disk.write_bytes(content)
    done = mend(agree=lambda _: True)
    assert not done.whole
    assert "put a backup in its place" in done.steps[0].done
    assert machine.data_disk.read_bytes() == content


def test_an_iso_that_is_not_in_the_cache(machine: MachineDir, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(cache.folder())
    monkeypatch.setattr("launcher.guestfiles.checkout", lambda: None)
    done = module.repair("default", QUIET)
    assert not done.whole
    assert f"wherry upgrade {machine.name}" in done.steps[0].done


def test_the_built_iso_is_imported_again(machine: MachineDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(cache.folder())
    built = tmp_path / "build" / f"wherry-{host.native_arch()}.iso"
    built.parent.mkdir()
    data = iso_bytes(volume=f"WHERRY_{host.native_arch().upper()}")
    built.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    built.with_suffix(".json").write_text(json.dumps(manifest.minimal(host.native_arch(), "0", sha256, len(data))))
    machine.write_config(machine.read_config().changed(iso=sha256))
    monkeypatch.setattr("launcher.guestfiles.checkout", lambda: tmp_path)
    assert [step.done for step in module.repair("default", QUIET).steps] == ["in the cache again"]
    assert images.by_sha(sha256).path.read_bytes() == data


def test_a_lock_held_by_a_stranger_is_told_and_left(machine: MachineDir) -> None:
    machine.keeper_log.touch()
    lock = host.current().lock(machine.qemu_lock_file, wait=False)
    assert lock is not None
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(lock,), cwd=machine.path
    )
    os.close(lock)
    try:
        done = mend(agree=lambda _: True)
        assert not done.whole
        assert str(stranger.pid) in done.steps[0].found
        assert stranger.poll() is None
    finally:
        assert stranger.stdin is not None
        stranger.stdin.close()
        stranger.wait()


def test_damage_of_one_machine_does_not_stop_the_list(machine: MachineDir, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "three"):
        shutil.copytree(machine.path, machine.path.with_name(name))
    (machine.path.with_name("one") / "machine.toml").write_bytes(b"\xff" * 100)
    (machine.path.with_name("two") / "state.json").write_text("[" * 10000)
    shutil.rmtree(machine.path.with_name("three"))
    machine.path.with_name("three").mkdir()
    found = {item["name"]: item for item in list_machines()}
    assert {name: item["status"] for name, item in found.items()} == {
        "default": "stopped", "one": "broken", "two": "broken", "three": "broken",
    }  # fmt: skip
    assert all(item["problem"] and item["next"].endswith(f"repair {name}") for name, item in found.items() if name != "default")


def test_sparse_copies(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(3 << 20)
    files.copy_sparse(source, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    assert (tmp_path / "target").stat().st_blocks * 512 < 1 << 18


def test_no_space_for_the_copy_of_a_disk(machine: MachineDir, monkeypatch: pytest.MonkeyPatch) -> None:
    write(machine.data_disk, 5)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(WherryError, match="no space for that"):
        qcow.mend_all(machine.data_disk, Path("qemu-img"))


def test_what_is_said(machine: MachineDir, wherry: Callable[..., Said]) -> None:
    assert wherry("repair") == Said(0, "nothing is to be mended\n", "")
    machine.client_key.unlink()
    said = wherry("repair", "--dry-run", "--json")
    data = json.loads(said.out)["data"]
    assert (said.code, data["whole"], data["status"]) == (1, False, "broken")
    assert [(step["found"], step["mended"]) for step in data["steps"]] == [("the key id_ed25519 is lost or damaged", True)]
    assert wherry("repair") == Said(0, "the key id_ed25519 is lost or damaged: made anew\n", "")
    machine.data_disk.unlink()
    said = wherry("repair", "--yes")
    assert said.code == 1
    assert said.out.startswith(f"{machine.data_disk} is gone")


def test_a_machine_that_runs_is_left_alone(keeper: FakeKeeper, wherry: Callable[..., Said]) -> None:
    keeper.directory.host_key.unlink()
    assert wherry("repair") == Said(0, "nothing is to be mended\n", "")
    assert {request["verb"] for request in keeper.requests} == {"status"}
    assert not keeper.directory.host_key.exists()


def test_a_damaged_file_system_is_left_to_e2fsck(machine: MachineDir, monkeypatch: pytest.MonkeyPatch) -> None:
    repaired = importlib.import_module("launcher.machine.repair")
    machine.write_state(
        State(status="failed", last_error={"message": f"{readiness.DAMAGED_WORDS}: bad magic. It is not mounted."})
    )
    asked = []

    def refuse(name: str, report: object) -> None:
        asked.append(name)
        raise Refused("e2fsck cannot mend it.", hint="wherry repair --read-only")

    monkeypatch.setattr(repaired, "repair_disk", refuse)
    done = mend()
    assert asked == ["default"]
    assert not done.whole
    assert done.steps[0].done == "e2fsck cannot mend it. wherry repair --read-only"
    # What is around the file system comes first: a disk that cannot be read is not started.
    machine.data_disk.write_bytes(b"")
    assert not mend().whole
    assert asked == ["default"]
