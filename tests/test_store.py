from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launcher import __version__, host, store
from launcher.config import GIB, MachineConfig
from launcher.errors import Damaged, NoSuchMachine, Refused, Usage, WherryError
from launcher.host._places import windows_has
from launcher.state import State
from launcher.store import MachineDir
from tests.systems import not_on_windows


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


CONFIG = MachineConfig(arch="amd64", cpus=1, memory=GIB, iso="a" * 64)


def made(name: str = "default") -> MachineDir:
    return store.create(name, CONFIG, lambda _: None)


def test_a_machine_is_whole_or_not_there() -> None:
    def fail(_: MachineDir) -> None:
        raise WherryError("no room")

    with pytest.raises(WherryError, match="no room"):
        store.create("default", CONFIG, fail)
    assert store.machines() == []
    assert list((store.home() / "machines").iterdir()) == []


def test_a_second_one_of_the_name_is_refused_and_changes_nothing() -> None:
    directory = made()
    before = directory.config_file.read_bytes()
    with pytest.raises(Refused):
        store.create("default", CONFIG.changed(cpus=2), lambda _: None)
    assert directory.config_file.read_bytes() == before


@not_on_windows("modes")
def test_config_round_trip_and_modes() -> None:
    directory = made()
    assert directory.read_config() == CONFIG
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.config_file.stat().st_mode) == 0o600


def test_a_change_keeps_the_comments() -> None:
    directory = made()
    text = directory.config_file.read_text().replace("cpus = 1", "cpus = 1 # enough")
    directory.config_file.write_text("# mine\n" + text)
    directory.write_config(CONFIG.changed(cpus=4))
    assert directory.config_file.read_text().startswith("# mine\n")
    assert "# enough" in directory.config_file.read_text()
    assert directory.read_config().cpus == 4


def test_no_machine_and_no_config() -> None:
    with pytest.raises(NoSuchMachine) as caught:
        store.machine("box").read_config()
    assert caught.value.hint == "wherry up box"
    directory = made()
    directory.config_file.unlink()
    with pytest.raises(WherryError, match="machine.toml is lost"):
        directory.read_config()


def test_a_damaged_config_is_an_error_of_ours() -> None:
    directory = made()
    directory.config_file.write_bytes(b"\xff\x00")
    with pytest.raises(WherryError, match="cannot be read"):
        directory.read_config()


def test_state_round_trip_and_damage() -> None:
    directory = made()
    assert directory.read_state() == State()
    state = State(status="running", token="t", qemu_pid=7, timeline=[["kernel", 1.5]], restarts={"panic": 1})
    directory.write_state(state)
    assert directory.read_state() == replace(state, wherry=__version__)
    damage = (
        "", "{", "[]", "null", "[" * 100_000, "\0" * 4096, '{"version": 1, "colour": 1}', '{"version": 1, "qemu_pid": "7"}',
        '{"version": 1, "timeline": [["kernel"]]}', '{"version": 1, "qemu_pid": true}', '{"version": "1"}', '{"version": 0}',
    )  # fmt: skip
    for text in damage:
        directory.state_file.write_text(text)
        with pytest.raises(Damaged, match=r"state\.json") as caught:
            directory.read_state()
        assert caught.value.hint == "wherry repair"
    directory.state_file.write_text('{"version": 2}')
    with pytest.raises(Refused):
        directory.read_state()


def test_a_write_that_fails_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = made()
    store.write_private(directory.state_file, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space .*state\.json"):
        store.write_private(directory.state_file, b"new")
    assert directory.state_file.read_bytes() == b"old"
    assert [path.name for path in directory.path.iterdir() if "state" in path.name] == ["state.json"]


def test_list_shows_machines_only() -> None:
    made("b")
    made("a")
    folder = store.home() / "machines"
    (folder / "Not A Name").mkdir()
    (folder / ".hidden").mkdir()
    (folder / "file").touch()
    assert [machine.name for machine in store.machines()] == ["a", "b"]


def test_remove_takes_the_run_folder_too() -> None:
    directory = made()
    host.current().make_private(directory.run_dir)
    store.remove(directory)
    assert not directory.path.exists()
    assert not directory.run_dir.exists()
    assert list(directory.path.parent.iterdir()) == []


def test_socket_paths_are_short_even_for_a_long_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    long = MachineDir(
        "default", Path("/Users/a-name-with-thirty-characters/Library/Application Support/wherry/machines/default")
    )
    other = MachineDir("other", long.path.with_name("other"))
    for module in (host.current(),):
        assert module.run_base().is_absolute()
    assert all(
        len(os.fsencode(path)) <= store.LONGEST_SOCKET
        for path in (long.control_socket, long.engine_socket, long.qmp_socket, long.serial_socket)
    )
    assert long.run_dir != other.run_dir


@not_on_windows("locks are not handed over")
def test_qemu_runs_while_its_lock_is_held_by_anybody() -> None:
    directory = made()
    assert not directory.qemu_runs()
    descriptor = host.current().lock(directory.qemu_lock_file, wait=False)
    assert descriptor is not None
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(descriptor,)
    )
    os.close(descriptor)
    try:
        assert directory.qemu_runs()
    finally:
        assert child.stdin is not None
        child.stdin.close()
        child.wait()
    assert not directory.qemu_runs()


@not_on_windows("the folder is in the user's own")
def test_a_run_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused):
        host.current().make_private(link)
    loose = tmp_path / "loose"
    loose.mkdir(mode=0o755)
    host.current().make_private(loose)
    assert stat.S_IMODE(loose.stat().st_mode) == 0o700


@not_on_windows("blocks are not told")
def test_disk_used_counts_blocks_not_holes() -> None:
    directory = made()
    with directory.data_disk.open("wb") as file:
        file.truncate(1 << 30)
    assert 0 < directory.disk_used() < 1 << 20


def test_the_folder_for_sockets_is_named_by_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever code reckons it: another wherry, or another Python, looks in the same place."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    place = MachineDir("m", tmp_path / "m")
    name = hashlib.sha256(os.fsencode(os.path.realpath(place.path))).hexdigest()[:8]
    assert place.run_dir.name == name
    monkeypatch.setattr("importlib.import_module", lambda module: (_ for _ in ()).throw(ImportError(module)))
    assert place.run_dir.name == name


@not_on_windows("it has these devices")
def test_a_device_is_no_name_where_the_system_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store.create("nul", CONFIG, lambda _: None)  # here it is one as any other
    monkeypatch.setattr(host.current(), "can_have", windows_has)
    with pytest.raises(Usage, match="device of this system"):
        store.create("con", CONFIG, lambda _: None)
    assert [machine.name for machine in store.machines()] == ["nul"]
