"""The small helpers: log (bounded logs), await and stage (waiting for files), button (the power key)."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from pathlib import Path

import pytest

from .helpers import helper


def test_log_keeps_the_process_id_and_both_streams(tmp_path: Path) -> None:
    file = tmp_path / "log"
    command = [helper("log"), file, "100000", "sh", "-c", "echo $$; echo err >&2; exit 9"]
    with subprocess.Popen(command) as process:
        assert process.wait(10) == 9
        wait_for(lambda: file.exists() and file.read_text() == f"{process.pid}\nerr\n")


def wait_for(condition: object, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "did not come in time"
        time.sleep(0.02)


def test_log_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "log"
    # All of it at once, as where the helper gets its turn late.
    (tmp_path / "lines").write_text("".join(f"line {number}\n" for number in range(2000)) + "last\n")
    script = f"cat {tmp_path}/lines"
    subprocess.run([helper("log"), file, "4000", "sh", "-c", script], check=True)
    wait_for(lambda: file.exists() and file.read_text().endswith("last\n"))
    old = tmp_path / "log.1"
    assert file.stat().st_size <= 4000 and 0 < old.stat().st_size <= 4000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines", "log", "log.1"]


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
        assert process.communicate(timeout=60)[0] == "now\n"


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


def vitals(lines: str, *arguments: Path | str) -> list[str]:
    done = subprocess.run([helper("vitals"), *arguments], input=lines, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_vitals_tells_the_time_and_the_disk(tmp_path: Path) -> None:
    before = time.time_ns()
    told, disk = vitals("t\nd\n", tmp_path)
    assert before <= int(told) <= time.time_ns()
    usage = os.statvfs(tmp_path)
    total, free = map(int, disk.split())
    assert total == usage.f_blocks * usage.f_frsize and 0 <= free <= total


def test_vitals_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    assert vitals("x\nstep\nstep much\nslew 1x\n") == ["error unknown", "error unknown", "error no number", "error no number"]
    assert vitals("d\n", tmp_path / "none")[0].startswith("error No such file")
