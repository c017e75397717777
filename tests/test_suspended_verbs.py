"""What each command does to a machine that is suspended: its saved memory belongs to its disk, ISO and hardware."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import disks, saved, store
from launcher.config import GIB
from launcher.keeper import rest
from launcher.keeper.idle import Containers
from launcher.store import MachineDir
from tests.conftest import Said
from tests.fakes import CONFIG, make_iso, make_machine

Wherry = Callable[..., Said]
IMG = Path(shutil.which("qemu-img") or "qemu-img")
HEADER = b"wherry data disk, layout 1\n".ljust(4096, b"\0")


@pytest.fixture
def suspended(home: Path) -> MachineDir:
    """As a keeper leaves it; what state.json says does not count."""
    directory = make_machine()
    directory.data_disk.unlink()
    disks.create(directory.data_disk, GIB, IMG)
    os.rename(directory.data_disk, directory.suspended_disk)
    directory.memory_file.write_bytes(b"x" * 1000)
    saved.write(
        directory,
        saved.Saved(
            id="a", iso=CONFIG.iso, qemu_version="7", accel="tcg", cpu="", cpus=1, ram=GIB, command=[],
            disk=saved.stamp(directory, suspended=True), memory=1000, at=time.time(),
        ),
    )  # fmt: skip
    return directory


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs QEMU's tools")
class TestVerbs:
    def refused(self, said: Said, directory: MachineDir) -> None:
        assert said.code == 6 and "is suspended" in said.err, said
        assert "wherry up default resumes it" in said.err and "--cold" in said.err
        disk = saved.read(directory).disk
        assert saved.stamp(directory, suspended=True) == disk and not directory.data_disk.exists()

    @pytest.mark.parametrize(
        "words",
        [
            ("disk", "grow", "2G"),
            ("disk", "reclaim"),
            ("disk", "backup", "{tmp}/backup.qcow2"),
            ("disk", "restore", "--yes", "{tmp}/some.qcow2"),
            ("upgrade",),
            ("upgrade", "--rollback"),
            ("config", "set", "cpus=2"),
            ("config", "set", "memory=3G"),
            ("config", "set", "accel=tcg"),
            ("config", "set", "qemu=/bin/sh"),
            ("config", "set", "idle_suspend=5", "memory=3G"),
            ("config", "unset", "memory"),
            ("up", "--cpus", "2"),
            ("up", "--memory", "3G"),
            ("repair", "--read-only"),
            ("repair", "--forget"),
            ("repair", "--undo"),
            ("repair", "--new-disk"),
        ],
        ids=lambda words: " ".join(words),
    )
    def test_it_refuses(self, words: tuple[str, ...], wherry: Wherry, suspended: MachineDir, tmp_path: Path) -> None:
        (tmp_path / "some.qcow2").write_bytes(b"some")
        before = suspended.config_file.read_bytes()
        self.refused(wherry(*(word.format(tmp=tmp_path) for word in words)), suspended)
        assert suspended.config_file.read_bytes() == before and not (tmp_path / "backup.qcow2").exists()

    def test_looks_tell(self, wherry: Wherry, suspended: MachineDir) -> None:
        said = wherry("disk", "info", "--json")
        found = json.loads(said.out)["data"]
        assert said.code == 0 and found["path"] == str(suspended.suspended_disk) and found["size"] == GIB
        assert wherry("doctor").out.count("default is suspended") == 1
        assert "suspended" in wherry("list").out and wherry("status").code == 3
        assert wherry("logs", "keeper").code in (0, 1)
        assert wherry("ip").code == 3
        self.refused(wherry("disk", "reclaim"), suspended)

    def test_soft_settings_are_written(self, wherry: Wherry, suspended: MachineDir, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        assert wherry("config", "set", "idle_suspend=5").code == 0
        assert wherry("config", "set", "engine.debug=true").code == 0
        assert wherry("share", "add", str(folder)).code == 0
        assert str(folder) in wherry("share", "list").out
        assert "after 5 min without any use, such as a container that runs; the next" in wherry("status").out
        assert wherry("config", "set", "idle_suspend_containers=true").code == 0
        assert "after 5 min without any use; the next" in wherry("status").out
        wanted = suspended.read_config()
        assert wanted.idle_suspend == 5 and wanted.shares.folders == (str(folder),)
        assert saved.is_suspended(suspended)

    def test_its_iso_is_kept(self, wherry: Wherry, suspended: MachineDir) -> None:
        """Also when machine.toml names another one by now."""
        needed, other = make_iso(), make_iso("c" * 64)
        suspended.write_config(suspended.read_config().changed(iso="d" * 64))
        assert wherry("iso", "prune", "--yes").code == 0
        assert needed.exists() and not other.exists()

    def test_a_repair_leaves_one_alone_that_is_whole(self, wherry: Wherry, suspended: MachineDir) -> None:
        wherry("repair", "--yes")
        assert saved.is_suspended(suspended) and saved.read(suspended).disk == saved.stamp(suspended, suspended=True)

    def test_stop_says_what_it_is(self, wherry: Wherry, suspended: MachineDir) -> None:
        said = wherry("stop")
        assert said.code == 0 and "is suspended; nothing of it runs" in said.err and "up --cold" in said.err
        said = wherry("restart", "--force")
        assert said.code == 6 and "is suspended; nothing of it runs" in said.err and "--cold" in said.err
        said = wherry("suspend")
        assert said.code == 0 and "is suspended" in said.err

    def test_delete_names_its_memory(self, wherry: Wherry, suspended: MachineDir) -> None:
        said = wherry("delete")
        assert said.code == 6 and "memory    of the suspended machine" in said.err
        assert wherry("delete", "--yes").code == 0 and not store.machine("default").exists()


class FakeEvents:
    def subscribe(self, on_event: Callable[..., None], on_resync: Callable[..., None]) -> None:
        self.on_event, self.on_resync = on_event, on_resync

    def say(self, action: str, name: str = "a", of: str = "container") -> None:
        self.on_event({"Type": of, "Action": action, "Actor": {"ID": name}})


def test_containers_that_run_are_uses() -> None:
    events, ignored = FakeEvents(), False
    containers = Containers(events, lambda: ignored)  # type: ignore[arg-type]
    assert containers.uses() == (1, 0)  # nobody knows yet
    events.on_resync(None, [{"Id": "a", "State": "running"}, {"Id": "b", "State": "exited"}, {"Id": "c", "State": "paused"}])
    assert containers.uses() == (1, 0)
    events.say("start", "b")
    events.say("create", "d")
    events.say("start", "e", "service")
    assert containers.uses() == (2, 1)
    events.say("pause", "a")
    events.say("die", "b")
    assert containers.uses() == (0, 1)
    events.say("unpause", "a")
    assert containers.uses() == (1, 2)
    ignored = True
    assert containers.uses() == (0, 2)


class Told:
    """A guest's answers to `rest wake`, so many seconds off."""

    def __init__(self, off: float | None) -> None:
        self.off, self.line = off, ""

    def run_line(self, line: str, *, stdin: bytes, timeout: float) -> tuple[int, bytes, bytes]:
        self.line = line.splitlines()[0]
        assert stdin.endswith(b"\n") and len(stdin) == 129
        return 0, b"" if self.off is None else f"ok\n{(time.time() + self.off) * 1e9:.0f}\n".encode(), b""


@pytest.mark.parametrize(("off", "right"), [(0.0, True), (0.2, False), (-0.2, False), (None, False)])
def test_a_clock_that_was_set_by_what_is_known_is_looked_at(off: float | None, right: bool) -> None:
    told = Told(off)
    assert rest.wake(told, "abc", 1.5) is right  # type: ignore[arg-type]
    assert told.line == "set -- wake abc 1500000000"
