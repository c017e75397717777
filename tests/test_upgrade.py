"""A machine moves to another ISO and back; small ISOs, a disk that is a file of a few bytes, and no QEMU."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher import diskcopy, guestfiles, images, store
from launcher.errors import Refused, WherryError
from launcher.machine import enginedata, upgrade, wayback
from launcher.report import SilentReporter
from launcher.store import MachineDir
from tests.conftest import SOAK, Said
from tests.fakes import CONFIG
from tests.tinyiso import iso_bytes

QUIET = SilentReporter()
MakeIso = Callable[..., Path]
NOW, THEN = "as it was", "as the new engine left it"


@pytest.fixture
def make_iso(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeIso:
    """An ISO of wherry `version` whose manifest names these packages."""
    monkeypatch.setattr(guestfiles, "checkout", lambda: None)

    def make(version: str, engine: str = "28.5.2", **packages: str) -> Path:
        path = tmp_path / f"wherry-{version}.iso"
        path.write_bytes(iso_bytes() + version.encode().ljust(2048, b"\0"))
        manifest = {
            "format": 1, "version": version, "architecture": "amd64", "size": path.stat().st_size, "kernel": "6.12.1",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "engine": engine,
            "packages": [{"name": name.replace("_", "."), "version": text} for name, text in packages.items()],
        }  # fmt: skip
        path.with_suffix(".json").write_text(json.dumps(manifest))
        return path

    return make


def sha(path: Path) -> str:
    return str(json.loads(path.with_suffix(".json").read_text())["sha256"])


@pytest.fixture
def machine(make_iso: MakeIso) -> MachineDir:
    """A machine with the ISO of wherry 1.0: containerd 1, Docker 28."""
    iso = images.resolve("amd64", make_iso("1.0", containerd="1.7.24~ds1-6", runc="1.1.15-1"), QUIET)
    directory = store.create("default", CONFIG.changed(iso=iso.sha256), lambda made: None)
    directory.data_disk.write_text(NOW)
    return directory


@pytest.fixture
def same(make_iso: MakeIso) -> Path:
    """Another ISO, to and from which data goes freely."""
    return make_iso("1.1", containerd="1.7.27-1", runc="1.2.5-1")


@pytest.fixture
def over(make_iso: MakeIso) -> Path:
    """Another ISO, whose containerd migrates the data."""
    return make_iso("2.0", engine="29.1.0", containerd="2.1.9+ds1-5", runc="1.3.6-1")


# The rule


def manifest(**packages: str) -> dict[str, Any]:
    return {"packages": [{"name": name.replace("_", "."), "version": text} for name, text in packages.items()]}


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        ({"containerd": "1.7.24~ds1-6"}, {"containerd": "2.1.9+ds1-5"}, ["migrates"]),
        ({"containerd": "1.6.20"}, {"containerd": "1.7.24"}, []),
        ({"containerd": "2.0.0"}, {"containerd": "2.1.9"}, []),
        ({"containerd": "1.7.24"}, {"containerd": "2.0.0~rc1"}, ["migrates"]),
        ({"docker_io": "28.5.2"}, {"docker_io": "1:29.0.1-2"}, []),
        ({}, {"containerd": "2.0"}, []),
        ({"containerd": "10.0"}, {"containerd": "9.0"}, []),
    ],
)
def test_steps_on_the_way_up(old: dict[str, str], new: dict[str, str], kinds: list[str]) -> None:
    assert [step.kind for step in enginedata.upward(manifest(**old), manifest(**new))] == kinds


def test_steps_on_the_way_down() -> None:
    old, new = manifest(docker_io="29.0.1", containerd="2.1"), manifest(docker_io="28.5.2", containerd="1.7")
    assert {step.package for step in enginedata.downward(old, new, undone=False)} == {"containerd", "docker.io"}
    assert {step.package for step in enginedata.downward(old, new, undone=True)} == {"containerd"}
    assert enginedata.upward({"data_layout": 1}, {"data_layout": 2})
    assert not enginedata.upward({}, {"data_layout": 1})


def test_every_step_of_the_data_file_is_whole() -> None:
    assert {step.package for step in enginedata.steps()} == {"containerd", "docker.io", enginedata.LAYOUT}
    for step in enginedata.steps():
        assert step.kind in ("migrates", "fresh")
        assert enginedata._numbers(step.at)
        assert step.what


# The command line


def test_there_and_back(machine: MachineDir, same: Path, wherry: Callable[..., Said]) -> None:
    before = machine.config_file.read_bytes()
    said = wherry("upgrade", "--check", "--iso", str(same))
    assert said.code == 0
    for words in ("1.0", "1.1", "runc", "1.2.5-1", "from its next start on"):
        assert words in said.out
    assert machine.config_file.read_bytes() == before
    assert not machine.rollback_file.exists()

    said = wherry("upgrade", "--iso", str(same))
    assert said.code == 0, said.err
    assert "from its next start on" in said.err
    assert machine.read_config().iso == sha(same)
    record = json.loads(machine.rollback_file.read_text())
    assert (record["iso"], record["version"], record["engine"]) == (config_iso(before), "1.0", "28.5.2")
    assert store.isos_needed(machine) == {config_iso(before), sha(same)}
    said = wherry("upgrade", "--iso", str(same))
    assert (said.code, "has this ISO" in said.out) == (0, True)

    said = wherry("upgrade", "--rollback", "--json")
    assert json.loads(said.out)["data"]["iso"] == {"now": sha(same), "then": config_iso(before)}
    assert machine.read_config().iso == config_iso(before)
    assert wherry("upgrade", "--rollback").code == 6
    assert machine.data_disk.read_text() == NOW


def config_iso(text: bytes) -> str:
    return str(tomllib.loads(text.decode())["iso"])


def test_the_way_back_has_two_steps(machine: MachineDir, same: Path, make_iso: MakeIso, wherry: Callable[..., Said]) -> None:
    first, third = machine.read_config().iso, make_iso("1.2", containerd="1.7.28", runc="1.2.6")
    for iso in (same, third):
        assert wherry("upgrade", "--iso", str(iso)).code == 0
    for wanted in (sha(same), first):
        assert wherry("upgrade", "--rollback").code == 0
        assert machine.read_config().iso == wanted
    assert wherry("upgrade", "--rollback").code == 6


def test_an_irreversible_step_is_not_taken_unasked(machine: MachineDir, over: Path, wherry: Callable[..., Said]) -> None:
    before = machine.read_config().iso
    said = wherry("upgrade", "--yes", "--iso", str(over))
    assert said.code == 6
    assert "containerd 2 moves its metadata" in said.err
    assert "--copy" in said.err
    assert machine.read_config().iso == before
    assert not machine.rollback_file.exists()


def test_over_an_irreversible_step_and_back_with_the_copy(machine: MachineDir, over: Path, wherry: Callable[..., Said]) -> None:
    before = machine.read_config().iso
    said = wherry("upgrade", "--copy", "--iso", str(over))
    assert said.code == 0, said.err
    assert "data-before-29.1.0.qcow2" in said.err
    assert (machine.path / "data-before-29.1.0.qcow2").read_text() == NOW
    machine.data_disk.write_text(THEN)
    assert "data-before-29.1.0.qcow2" in wherry("delete").err  # refused: nobody to ask, and names what would go

    said = wherry("upgrade", "--rollback")
    assert said.code == 6
    assert "--copy puts data-before-29.1.0.qcow2 back" in said.err
    assert wherry("upgrade", "--rollback", "--no-copy").code == 6
    assert machine.read_config().iso == sha(over)

    said = wherry("upgrade", "--rollback", "--copy")
    assert said.code == 0, said.err
    assert "are missing" in said.err
    assert machine.read_config().iso == before
    assert machine.data_disk.read_text() == NOW
    assert (machine.path / "data-after-29.1.0.qcow2").read_text() == THEN
    assert not (machine.path / "data-before-29.1.0.qcow2").exists()


def test_without_the_copy_there_is_no_way_back(machine: MachineDir, over: Path, wherry: Callable[..., Said]) -> None:
    assert wherry("upgrade", "--no-copy", "--iso", str(over)).code == 0
    for words in ((), ("--copy",), ("--no-copy",)):
        assert wherry("upgrade", "--rollback", *words).code == 6
    assert machine.read_config().iso == sha(over)


def test_a_copy_that_was_deleted_is_no_way_back(machine: MachineDir, over: Path, wherry: Callable[..., Said]) -> None:
    assert wherry("upgrade", "--copy", "--iso", str(over)).code == 0
    (machine.path / "data-before-29.1.0.qcow2").unlink()
    assert wherry("upgrade", "--rollback", "--copy").code == 6
    assert wherry("upgrade", "--rollback").code == 6


def test_down_to_an_older_engine_by_name_is_refused(
    make_iso: MakeIso, machine: MachineDir, over: Path, wherry: Callable[..., Said]
) -> None:
    older = make_iso("0.9", engine="28.5.2", containerd="2.1.9")
    assert wherry("upgrade", "--no-copy", "--iso", str(over)).code == 0
    said = wherry("upgrade", "--iso", str(older))
    assert said.code == 6
    assert "Docker 29 keeps the images" in said.err
    assert machine.read_config().iso == sha(over)


def test_words_that_do_not_go_together(machine: MachineDir, same: Path, wherry: Callable[..., Said]) -> None:
    assert wherry("upgrade", "--rollback", "--iso", str(same)).code == 2
    assert wherry("upgrade", "nobody").code == 3
    assert wherry("upgrade", "--rollback", "--copy").code == 6


def test_a_file_of_a_newer_wherry_is_left(machine: MachineDir, same: Path, wherry: Callable[..., Said]) -> None:
    newer = '{"format": 2, "wherry": "99.0", "iso": "b"}'
    machine.rollback_file.write_text(newer)
    for words in (("--iso", str(same)), ("--rollback",)):
        said = wherry("upgrade", *words)
        assert said.code == 6
        assert "wherry 99.0" in said.err
    assert machine.rollback_file.read_text() == newer
    assert machine.read_config().iso != sha(same)


# Cut short


class Killed(BaseException):
    pass


class Cut:
    """Lets `steps` changes of files pass and ends everything at the next, before or after it is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: int, *, after: bool) -> None:
        self.left, self.after = steps, after
        for owner, name in ((wayback, "_write"), (MachineDir, "write_config"), (os, "link"), (os, "replace"), (os, "unlink")):
            monkeypatch.setattr(owner, name, self.wrap(getattr(owner, name)))

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*words: Any, **options: Any) -> Any:
            if self.left == 0 and not self.after:
                raise Killed
            done = real(*words, **options)
            if self.left == 0:
                raise Killed
            self.left -= 1
            return done

        return wrapped


def cut_short(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], steps: int, after: bool) -> bool:
    """Whether `act` was cut short."""
    with monkeypatch.context() as patch:
        Cut(patch, steps, after=after)
        try:
            act()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("steps", range(12))
@pytest.mark.parametrize("way", ["up", "back", "back with the copy"])
def test_cut_short_it_is_the_one_or_the_other(
    machine: MachineDir, same: Path, over: Path, monkeypatch: pytest.MonkeyPatch, way: str, steps: int, after: bool
) -> None:
    first = machine.read_config().iso
    wanted = upgrade.plan("default", same, QUIET)
    upgrade.carry_out(wanted, False, QUIET)  # so that there is a way back that must not be lost
    going = upgrade.plan("default", over, QUIET)
    if way != "up":
        upgrade.carry_out(going, True, QUIET)
        machine.data_disk.write_text(THEN)
        going = upgrade.plan_back("default")
        going = going if way == "back with the copy" else replace_steps(going)
    disk = machine.data_disk.read_text()
    with_copy = way != "back"
    ended = cut_short(monkeypatch, lambda: upgrade.carry_out(going, with_copy, QUIET), steps, after)

    needed = store.isos_needed(machine)
    wayback.settle(machine)
    found, record = machine.read_config(), wayback.read(machine)
    assert found.iso in (going.old, going.new.sha256)
    assert found == CONFIG.changed(iso=found.iso)
    assert found.iso in needed
    assert record is not None
    assert record.iso in needed
    upwards = sha(over) == found.iso
    assert record.iso == (sha(same) if upwards else first)
    if way == "back with the copy":
        assert machine.data_disk.read_text() == (THEN if upwards else NOW)
        assert upwards or (machine.path / "data-after-29.1.0.qcow2").read_text() == THEN
    else:
        assert machine.data_disk.read_text() == disk
    assert not ended or steps < 12
    # And what was wanted can be had now.
    if found.iso == going.old:
        again = upgrade.plan_back("default") if going.back else upgrade.plan("default", over, QUIET)
        upgrade.carry_out(again if way != "back" else replace_steps(again), with_copy, QUIET)
    assert machine.read_config().iso == going.new.sha256


def replace_steps(plan: upgrade.Plan) -> upgrade.Plan:
    """As over no step at all."""
    return replace(plan, steps=[])


def test_the_cuts_reach_the_end(machine: MachineDir, same: Path, over: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of steps above is enough, and not for nothing."""
    going = upgrade.plan("default", over, QUIET)
    assert cut_short(monkeypatch, lambda: upgrade.carry_out(going, True, QUIET), 1, True)
    assert not cut_short(monkeypatch, lambda: upgrade.carry_out(going, True, QUIET), 11, True)


def test_kill_9_of_the_real_command(machine: MachineDir, over: Path) -> None:
    """As above, with nothing imagined: the process is killed at a moment of chance. Each next one works."""
    chance = random.Random(5)
    first = machine.read_config().iso
    words = {True: ["--iso", str(over), "--copy"], False: ["--rollback", "--copy"]}
    program = [sys.executable, "-m", "launcher", "upgrade"]
    began = time.monotonic()
    subprocess.run([*program, "--check", "--iso", str(over)], check=True, capture_output=True)
    longest = 1.5 * (time.monotonic() - began)
    for _ in range(60 if SOAK else 5):
        up = machine.read_config().iso == first
        with subprocess.Popen([*program, *words[up]], stderr=subprocess.DEVNULL) as command:
            time.sleep(chance.uniform(0, longest))
            command.kill()
        assert machine.read_config().iso in (first, sha(over))
        for iso in store.isos_needed(machine):
            images.by_sha(iso)
        if (machine.read_config().iso == first) is up:
            done = subprocess.run([*program, *words[up]], capture_output=True, check=False)
            assert done.returncode == 0, done.stderr.decode()
        assert machine.data_disk.read_text() == NOW
        for kept in machine.path.glob("data-after-*"):
            kept.unlink()


# The copy


def test_a_copy_is_whole_sparse_and_closed_to_others(tmp_path: Path) -> None:
    source = tmp_path / "data.qcow2"
    with source.open("wb") as file:
        file.write(os.urandom(3_000_001))
        file.seek(64 << 20)
        file.write(b"the end of the first part")
        file.truncate(100 << 20)
    seen: list[tuple[int, int]] = []

    class Progress(SilentReporter):
        def progress(self, name: str, done: int, total: int) -> None:
            seen.append((done, total))

    diskcopy.copy(source, tmp_path / "copy.qcow2", Progress())
    copy = tmp_path / "copy.qcow2"
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    assert diskcopy.size_of(copy) <= diskcopy.size_of(source) + (2 << 20)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert not seen or seen[-1] == (100 << 20, 100 << 20)
    with pytest.raises(Refused, match="is there already"):
        diskcopy.copy(source, copy, QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.qcow2", "data.qcow2"]


def test_a_copy_that_there_is_no_room_for(
    machine: MachineDir, over: Path, monkeypatch: pytest.MonkeyPatch, wherry: Callable[..., Said]
) -> None:
    usage = shutil.disk_usage(machine.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    before = machine.config_file.read_bytes()
    said = wherry("upgrade", "--copy", "--iso", str(over))
    assert said.code == 1
    assert "are free" in said.err
    assert machine.config_file.read_bytes() == before
    assert not list(machine.path.glob("*before*"))


def test_what_a_killed_copy_left_goes(machine: MachineDir) -> None:
    (machine.path / ".data-before-29.1.0.qcow2.4194305-0123abcd").write_text("half")
    wayback.settle(machine)
    assert not list(machine.path.glob(".data*"))


def test_the_iso_that_is_wanted_must_be_there_at_the_end(machine: MachineDir, same: Path) -> None:
    wanted = upgrade.plan("default", same, QUIET)
    shutil.rmtree(wanted.new.path.parent)  # a prune of another command
    with pytest.raises(WherryError, match="not in the cache"):
        upgrade.carry_out(wanted, False, QUIET)
    assert machine.read_config().iso == wanted.old


def test_who_was_faster_wins(machine: MachineDir, same: Path, over: Path) -> None:
    slow = upgrade.plan("default", over, QUIET)
    upgrade.carry_out(upgrade.plan("default", same, QUIET), False, QUIET)
    with pytest.raises(Refused, match="another ISO meanwhile"):
        upgrade.carry_out(slow, True, QUIET)
    assert machine.read_config().iso == sha(same)


def test_a_way_back_that_was_cut_short_is_ended_by_the_same_words(
    machine: MachineDir, over: Path, monkeypatch: pytest.MonkeyPatch, wherry: Callable[..., Said]
) -> None:
    first = machine.read_config().iso
    assert wherry("upgrade", "--copy", "--iso", str(over)).code == 0
    machine.data_disk.write_text(THEN)
    going = upgrade.plan_back("default")
    assert cut_short(monkeypatch, lambda: upgrade.carry_out(going, True, QUIET), 3, after=True)
    assert machine.read_config().iso == sha(over)
    assert machine.data_disk.read_text() == NOW  # the disk is the old one, the ISO not yet
    said = wherry("upgrade", "--rollback", "--copy")
    assert (said.code, "has this ISO" in said.out) == (0, True), said.err
    assert machine.read_config().iso == first
    assert not machine.rollback_file.exists()
