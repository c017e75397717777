"""The small helpers: disk (what a disk is), log (bounded logs), await and stage (waiting for files), button (the power key)."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from .helpers import helper

MIB = 1 << 20
needs_mkfs = pytest.mark.skipif(shutil.which("mkfs.ext4", path="/usr/sbin:/sbin") is None, reason="needs e2fsprogs")


def disk(verb: str, device: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helper("disk"), verb, device], capture_output=True, text=True)


def probe(device: Path) -> dict[str, str]:
    result = disk("probe", device)
    assert result.returncode == 0, result.stderr
    return dict(word.split("=", 1) for word in result.stdout.split())


@pytest.fixture
def device(tmp_path: Path) -> Path:
    file = tmp_path / "disk"
    with file.open("wb") as stream:
        stream.truncate(64 * MIB)
    return file


def mkfs(device: Path, *options: str) -> None:
    # With a size, as the guest does it: without one mke2fs clears the end of the device, where the mark is.
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", *options, device, "63m"], check=True)


def put(device: Path, offset: int, data: bytes) -> None:
    with device.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def test_zeroes_are_blank(device: Path) -> None:
    assert probe(device) == {"state": "blank", "clean": "no", "grow": "no", "kib": str(63 * 1024)}


@pytest.mark.parametrize("offset", [0, 4 * MIB - 1, 60 * MIB, 64 * MIB - 1])
def test_one_byte_at_an_edge_makes_it_foreign(device: Path, offset: int) -> None:
    put(device, offset, b"x")
    assert probe(device)["state"] == "foreign"
    before = device.read_bytes()
    assert disk("begin", device).returncode == 1
    assert device.read_bytes() == before


def test_a_cut_formatting_is_known(device: Path) -> None:
    assert disk("begin", device).returncode == 0
    assert probe(device)["state"] == "partial"
    put(device, 1024, os.urandom(100_000))
    assert probe(device)["state"] == "partial"
    assert disk("begin", device).returncode == 0
    assert disk("end", device).returncode == 0
    assert probe(device)["state"] == "foreign"


@needs_mkfs
def test_our_file_system(device: Path) -> None:
    assert disk("begin", device).returncode == 0
    mkfs(device, "-L", "wherry-data", "-E", "nodiscard")
    assert probe(device)["state"] == "partial"
    assert disk("end", device).returncode == 0
    assert probe(device) == {"state": "ours", "clean": "yes", "grow": "no", "kib": str(63 * 1024)}


@needs_mkfs
def test_a_larger_disk_is_to_grow_and_an_unclean_one_to_be_checked(device: Path) -> None:
    mkfs(device, "-L", "wherry-data")
    with device.open("r+b") as stream:
        stream.truncate(128 * MIB)
    assert probe(device)["grow"] == "yes"
    put(device, 1024 + 0x3A, struct.pack("<H", 0))
    assert probe(device)["clean"] == "no"


@needs_mkfs
@pytest.mark.parametrize("label", ["", "wherry-data2", "root"])
def test_another_file_system_is_foreign(device: Path, label: str) -> None:
    mkfs(device, "-L", label)
    assert probe(device)["state"] == "foreign"


def test_a_device_that_is_too_small_or_absent(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"\0" * MIB)
    assert disk("probe", small).returncode == 1
    assert disk("probe", tmp_path / "none").returncode == 1


def test_log_keeps_the_process_id_and_both_streams(tmp_path: Path) -> None:
    file = tmp_path / "log"
    command = [helper("log"), file, "100000", "sh", "-c", "echo $$; echo err >&2; exit 9"]
    with subprocess.Popen(command) as process:
        assert process.wait(10) == 9
        wait_for(lambda: file.read_text() == f"{process.pid}\nerr\n")


def wait_for(condition: object, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "did not come in time"
        time.sleep(0.02)


def test_log_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "log"
    script = 'i=0; while [ $i -lt 2000 ]; do echo "line $i"; i=$((i+1)); done; echo last'
    subprocess.run([helper("log"), file, "4000", "sh", "-c", script], check=True)
    wait_for(lambda: file.exists() and file.read_text().endswith("last\n"))
    old = tmp_path / "log.1"
    assert file.stat().st_size <= 4000 + 65536 and old.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]


def test_log_of_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    result = subprocess.run([helper("log"), "/dev/full", "100000", "sh", "-c", "echo a; sleep 0.1; echo b; exit 4"])
    assert result.returncode == 4


def test_log_tells_a_missing_command(tmp_path: Path) -> None:
    assert subprocess.run([helper("log"), tmp_path / "log", "1000", "/no/such"]).returncode == 127


def test_await_runs_its_command_when_the_files_are_there(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "deep" / "er" / "two"
    with subprocess.Popen([helper("await"), one, two, "--", "echo", "now"], stdout=subprocess.PIPE, text=True) as process:
        time.sleep(0.2)
        one.touch()
        two.parent.mkdir(parents=True)
        time.sleep(0.2)
        assert process.poll() is None
        two.touch()
        assert process.communicate(timeout=5)[0] == "now\n"


def test_await_notices_a_rename(tmp_path: Path) -> None:
    with subprocess.Popen([helper("await"), tmp_path / "there"]) as process:
        time.sleep(0.2)
        (tmp_path / "new").touch()
        (tmp_path / "new").rename(tmp_path / "there")
        assert process.wait(30) == 0


def test_stage_is_said_once_with_two_decimals(tmp_path: Path) -> None:
    console = tmp_path / "console"
    console.touch()
    environment = {"WHERRY_RUN": str(tmp_path), "WHERRY_CONSOLE": str(console)}
    for _ in range(2):
        subprocess.run([helper("stage"), "ssh"], env=environment, check=True)
    lines = console.read_text().splitlines()
    assert len(lines) == 1
    word, name, seconds = lines[0].split()
    assert (word, name, len(seconds.split(".")[1])) == ("wherry-stage", "ssh", 2)
    assert abs(float(seconds) - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60


def key(kind: int, code: int, value: int) -> bytes:
    return struct.pack("@llHHi", 0, 0, kind, code, value)


def test_button_on_devices_that_are_there_and_that_come(tmp_path: Path) -> None:
    devices, pressed = tmp_path / "input", tmp_path / "pressed"
    devices.mkdir()
    command = tmp_path / "command"
    command.write_text(f"#!/bin/sh\necho pressed >>{pressed}\n")
    command.chmod(0o755)
    os.mkfifo(devices / "event0")
    (devices / "mice").touch()
    with subprocess.Popen([helper("button"), devices, command]) as process:
        try:
            first = os.open(devices / "event0", os.O_WRONLY)
            os.write(first, key(1, 30, 1) + key(1, 116, 0) + key(2, 116, 1))
            time.sleep(0.3)
            assert not pressed.exists()
            os.write(first, key(1, 116, 1))
            wait_for(lambda: pressed.exists() and pressed.read_text() == "pressed\n")
            os.mkfifo(devices / "event7")
            second = os.open(devices / "event7", os.O_WRONLY)
            os.write(second, key(1, 116, 1))
            wait_for(lambda: pressed.read_text() == "pressed\n" * 2)
            os.close(first)
            os.close(second)
        finally:
            process.kill()
