"""doctor: every line, without a machine, with a good one, with broken ones; and nothing is changed by looking."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from launcher import host, store
from launcher.config import GIB
from launcher.machine import doctor_engines, doctor_host
from launcher.machine.checks import Check, guarded
from launcher.qemu import probe
from tests.conftest import Said
from tests.fakes import CONFIG, FakeKeeper, make_iso, make_machine

Wherry = Callable[..., Said]

_QEMU = """#!/bin/sh
case "$*" in
*-accel*) printf 'Accelerators supported in QEMU binary:\\ntcg\\nkvm\\n' ;;
*-netdev*) printf 'Available netdev backend types:\\nuser\\nsocket\\n' ;;
*) echo 'QEMU emulator version 8.2.2 (a fake)' ;;
esac
"""


@pytest.fixture
def qemu(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A QEMU of our own on PATH, and a user without other engines; the folder of the programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("qemu-system-x86_64", "qemu-system-aarch64", "qemu-img"):
        (folder / name).write_text(_QEMU)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", *doctor_host._PROXIES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return folder


def checks(wherry: Wherry, *words: str) -> dict[str, dict[str, Any]]:
    said = wherry("doctor", *words, "--json")
    data = json.loads(said.out)["data"]
    assert said.code == (1 if data["failed"] else 0)
    assert data["failed"] == any(check["status"] == "failure" for check in data["checks"])
    for check in data["checks"]:
        assert (check["status"] == "ok") == (check["step"] == ""), check
    return {check["name"]: check for check in data["checks"]}


def whole_machine(name: str = "default") -> store.MachineDir:
    directory = make_machine(name)
    for key in (directory.client_key, directory.host_key):
        key.touch(mode=0o600)
    return directory


def recent(**values: Any) -> Path:
    return make_iso(built=(datetime.now(UTC) - timedelta(days=3)).isoformat(), **values)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode) for path in [folder, *folder.rglob("*")]}


def test_without_a_machine(wherry: Wherry, qemu: Path, home: Path) -> None:
    found = checks(wherry)
    assert "failure" not in {check["status"] for check in found.values()}
    assert "there is none yet" in found["machine"]["text"] and "none is here yet" in found["iso"]["text"]
    assert "8.2.2" in found["qemu"]["text"]
    assert {"wherry", "home", "space", "memory", "libslirp", "acceleration", "sockets", "clock", "docker.sock", "proxy"} <= set(
        found
    )
    assert not home.exists()
    assert wherry("doctor", "nope").code == 3
    assert wherry("doctor", "--force").code == 2


def test_a_good_machine_and_nothing_is_changed(wherry: Wherry, qemu: Path, home: Path) -> None:
    whole_machine()
    recent()
    before = tree(home)
    found = checks(wherry)
    assert found["keys"]["status"] == found["machine"]["status"] == "ok" and "stopped" in found["machine"]["text"]
    assert tree(home) == before
    lines = wherry("doctor").out.splitlines()
    assert any(line.startswith("ok        keys ") for line in lines)


def test_a_missing_and_an_old_qemu(wherry: Wherry, qemu: Path) -> None:
    program = qemu / "qemu-system-x86_64"
    whole_machine()
    program.write_text(_QEMU.replace("8.2.2", "6.1.0"))
    assert "6.1.0" in checks(wherry)["qemu"]["text"] and checks(wherry)["qemu"]["status"] == "failure"
    program.write_text(_QEMU.replace("user", "none"))
    assert checks(wherry)["libslirp"]["status"] == "failure"
    file = store.machine("default").config_file
    file.write_text(file.read_text() + 'qemu = "/nowhere/qemu"\n')
    assert "/nowhere/qemu" in checks(wherry)["qemu"]["text"]


@pytest.mark.parametrize(
    ("version", "status"),
    [("4.5.9", "warning"), ("4.6.0", "ok"), ("4.10.1", "ok"), ("", "ok")],
    ids=lambda value: value or "none",
)
def test_libslirp_is_asked_itself(
    version: str, status: str, qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real shared library, compiled here, in place of libslirp."""
    import shutil
    import subprocess

    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    source = f'const char *slirp_version_string(void) {{ return "{version}"; }}' if version else "int nothing;"
    library = tmp_path / "libslirp.so.0"
    subprocess.run(["cc", "-shared", "-o", library, "-xc", "-"], input=source, text=True, check=True)
    monkeypatch.setattr(host.current(), "libraries", lambda program: [library])
    (check,) = doctor_host._slirp(probe.find("amd64", keep=False))
    assert check.status == status and version in check.text


def test_why_there_is_no_acceleration(qemu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = probe.find("amd64", keep=False)

    def look(wanted: str = "auto") -> Check:
        (check,) = doctor_host._accelerator(found, "amd64", wanted)
        return check

    monkeypatch.setattr(host.current(), "accelerators", lambda arch: ["kvm", "tcg"])
    monkeypatch.setattr(host.current(), "no_acceleration", lambda arch: None)
    assert look().status == "ok" and "no start" in look().text
    probe.remember(found, "amd64", "kvm")
    assert look().text == "kvm, which worked at the last start"
    probe.remember(found, "amd64", "tcg")
    assert look().status == "warning" and "did not start on it" in look().text and "qemu.json" in look().step
    assert look("tcg").status == "ok"
    monkeypatch.setattr(host.current(), "no_acceleration", lambda arch: ("/dev/kvm is missing", "sudo modprobe kvm_intel"))
    assert look() == Check(
        "acceleration",
        "warning",
        "machines of amd64 are emulated, 5-8 times slower: /dev/kvm is missing",
        "sudo modprobe kvm_intel",
    )
    monkeypatch.setattr(host.current(), "no_acceleration", lambda arch: ("another architecture", ""))
    assert look().status == "ok"


def test_an_iso_that_is_gone_old_or_below(wherry: Wherry, qemu: Path) -> None:
    whole_machine()
    assert checks(wherry)["iso"]["status"] == "failure"
    folder = make_iso(built="2001-01-01T00:00:00Z", packages=[{"name": "runc", "version": "1.0"}])
    said = wherry("doctor")
    assert said.code == 0 and "days old" in said.out and "runc 1.0 is older than" in said.out
    (folder / "wherry.iso").write_bytes(b"short")
    assert "damaged" in checks(wherry)["iso"]["text"]


def test_a_clock_that_is_set_back(wherry: Wherry, qemu: Path) -> None:
    whole_machine()
    make_iso(built="2999-01-01T00:00:00Z")
    found = checks(wherry)
    assert found["clock"]["status"] == "failure" and "before the ISO was built" in found["clock"]["text"]


@pytest.mark.parametrize(("off", "status"), [(0, "ok"), (-3600, "warning"), (4000, "warning")])
def test_the_machines_clock(
    off: int, status: str, wherry: Wherry, qemu: Path, keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_host, "_CLOCK_OFF", 600.0)  # this one stands still, however long it takes until it is asked
    time = (datetime.now(UTC) + timedelta(seconds=off)).isoformat().replace("+00:00", "000Z")
    keeper.info = {"ServerVersion": "28.5.2", "SystemTime": time}
    for key in (keeper.directory.client_key, keeper.directory.host_key):
        key.touch(mode=0o600)
    recent()
    found = checks(wherry)
    assert found["machine's clock"]["status"] == status and "28.5.2" in found["engine"]["text"]
    assert "running" in found["machine"]["text"]


def test_a_broken_machine(wherry: Wherry, qemu: Path) -> None:
    directory = whole_machine()
    recent()
    whole_machine("other").data_disk.unlink()
    found = checks(wherry)
    assert found["other machines"]["status"] == "warning" and found["other machines"]["step"] == "wherry doctor other"
    directory.config_file.write_text("cpus = nonsense")
    found = checks(wherry)
    assert found["machine"]["status"] == "failure" and "wherry repair default" in found["machine"]["step"]
    assert "cannot be known" in found["iso"]["text"]
    directory.config_file.unlink()
    assert checks(wherry)["machine"]["status"] == "failure"


def test_a_socket_that_nobody_serves(wherry: Wherry, qemu: Path, home: Path) -> None:
    directory = whole_machine()
    recent()
    assert checks(wherry)["engine socket"]["status"] == "ok"  # it does not run
    holder = host.current().lock(directory.qemu_lock_file, wait=False)
    assert holder is not None
    found = checks(wherry)
    os.close(holder)
    assert found["engine socket"]["status"] == "failure" and "the containers, which go on" in found["engine socket"]["text"]
    assert found["engine socket"]["step"] == found["machine"]["step"] == "wherry up"


def test_the_socket_of_a_machine_that_runs(wherry: Wherry, qemu: Path, keeper: FakeKeeper) -> None:
    found = checks(wherry)["engine socket"]
    assert found["status"] == "failure" and found["step"] == "wherry restart default"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(keeper.directory.engine_socket))
        listening.listen()
        assert "is served" in checks(wherry)["engine socket"]["text"]


def test_keys_that_are_gone_or_open(wherry: Wherry, qemu: Path) -> None:
    directory = whole_machine()
    recent()
    directory.host_key.chmod(0o644)
    found = checks(wherry)["keys"]
    assert found["status"] == "failure" and found["step"] == f"chmod go= {directory.host_key}"
    directory.client_key.unlink()
    assert "id_ed25519 is gone" in checks(wherry)["keys"]["text"]


def test_a_step_of_several_commands_has_a_line_for_each(wherry: Wherry, qemu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = whole_machine()
    recent()
    directory.host_key.chmod(0o644)
    monkeypatch.setattr(host.current(), "close_hint", lambda paths: f"reset {paths[0].name}\ngrant {paths[0].name}")
    said = wherry("doctor").out.splitlines()
    at = next(number for number, line in enumerate(said) if "other users can read" in line)
    assert [line.strip() for line in said[at + 1 : at + 3]] == [
        f"-> {word} {directory.host_key.name}" for word in ("reset", "grant")
    ]


def test_shared_folders(wherry: Wherry, qemu: Path, tmp_path: Path) -> None:
    whole_machine()
    (tmp_path / "user/.ssh").mkdir(parents=True)
    (tmp_path / "a b").mkdir()
    assert checks(wherry)["shares"]["text"] == f"{tmp_path}/user, 1 private place hidden"
    assert wherry("share", "add", str(tmp_path / "a b")).code == 0
    (tmp_path / "a b").rmdir()
    found = checks(wherry)["shares"]
    assert (found["status"], found["text"]) == ("warning", f"{tmp_path}/a b is not there any more")
    assert found["step"] == f"wherry share remove '{tmp_path}/a b'"


def test_a_shared_folder_that_the_machine_does_not_have(wherry: Wherry, qemu: Path, tmp_path: Path, keeper: FakeKeeper) -> None:
    (tmp_path / "user").mkdir()
    keeper.shares = {"state": "failed", "detail": "it is on fire"}
    found = checks(wherry)["shares"]
    assert (found["status"], found["step"]) == ("warning", "wherry logs shares")
    assert found["text"] == f"the machine does not have {tmp_path}/user: it is on fire"


def test_a_shared_folder_that_the_system_keeps_from_us(
    wherry: Wherry, qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "user" / "Documents").mkdir(parents=True)
    whole_machine()
    folders = [str(tmp_path / "user" / "Documents"), str(tmp_path / "elsewhere")]
    monkeypatch.setattr(host.current(), "guarded_folders", lambda: folders)
    monkeypatch.setattr(host.current(), "withheld", lambda path: (f"macOS keeps {path} from wherry", "System Settings"))
    found = checks(wherry)["shares"]
    assert (found["status"], found["step"]) == ("warning", "System Settings")
    assert found["text"] == f"macOS keeps {folders[0]} from wherry, and so from containers"


def test_socket_paths_that_are_too_long(wherry: Wherry, qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks(wherry)["sockets"]["status"] == "ok"
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    found = checks(wherry)["sockets"]
    assert found["status"] == "failure" and "too long" in found["text"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "wherry").mkdir(mode=0o755)
    (tmp_path / "wherry").chmod(0o755)
    assert "not yours alone" in checks(wherry)["sockets"]["text"]


def test_room_and_memory() -> None:
    assert [doctor_host._room(Path("/x"), int(free * GIB)).status for free in (0.4, 2, 20)] == ["failure", "warning", "ok"]
    (check,) = doctor_host.memory(CONFIG.changed(memory=1 << 50), running=False)
    assert check.status == "failure"
    (check,) = doctor_host.memory(CONFIG.changed(memory=1 << 50), running=True)
    assert check.status == "ok"


def test_a_home_that_cannot_be_made(wherry: Wherry, qemu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERRY_HOME", str(qemu / "qemu-img" / "home"))
    found = checks(wherry)
    assert found["home"]["status"] == "failure" and "WHERRY_HOME" in found["home"]["step"]


def test_proxies_are_told_without_passwords(wherry: Wherry, qemu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://ana:hunter2@proxy:3128")
    assert checks(wherry)["proxy"]["text"] == "HTTPS_PROXY=http://***@proxy:3128"


def test_other_engines(wherry: Wherry, qemu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = tmp_path / "user"
    found = checks(wherry)
    assert found["other engines"]["text"] == "none is seen" and "/var/run/docker.sock" in found["docker"]["text"]
    for path in (".colima/default/docker.sock", ".docker/run/docker.sock", ".docker/config.json"):
        (user / path).parent.mkdir(parents=True, exist_ok=True)
        (user / path).touch()
    (tmp_path / "podman").mkdir()
    (tmp_path / "podman" / "podman.sock").touch()
    found = checks(wherry)
    assert found["other engines"]["text"] == "sockets of Colima, Docker Desktop, Podman"
    assert found["docker"]["status"] == "warning" and "cannot be read" in found["docker"]["text"]
    (user / ".docker" / "config.json").write_text('{"currentContext": "colima"}')
    assert "does not exist" in checks(wherry)["docker"]["text"]
    meta = user / ".docker" / "contexts" / "meta" / "0123" / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": "colima", "Endpoints": {"docker": {"Host": "unix:///x.sock"}}}))
    assert "'colima'" in checks(wherry)["docker"]["text"] and "unix:///x.sock" in checks(wherry)["docker"]["text"]
    monkeypatch.setenv("DOCKER_HOST", "ssh://ana:hunter2@far")
    assert checks(wherry)["docker"]["text"] == "without wherry it goes to DOCKER_HOST=ssh://***@far"


def test_who_holds_the_usual_socket(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    assert "is free" in doctor_engines._usual_socket(path).text
    path.symlink_to(tmp_path / "other.sock")
    assert "where nothing is" in doctor_engines._usual_socket(path).text
    (tmp_path / "other.sock").touch()
    assert doctor_engines._usual_socket(path).text.endswith("other.sock")
    path.unlink()
    path.touch()
    assert "belongs to an engine" in doctor_engines._usual_socket(path).text


def test_a_mistake_of_ours_hides_nothing() -> None:
    def look() -> Iterator[Check]:
        yield Check("one", "ok", "fine")
        raise KeyError("two")

    first, second = guarded("thing", look)
    assert first.name == "one" and second.status == "failure" and "KeyError" in second.text
