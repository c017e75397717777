"""What a machine gives back, and its disk as a whole: one machine with a disk of 4 GB, in turn."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.qemu.command import TRANSLATIONS
from tests.vm.driver import SOAK, START_SECONDS, Driver

pytestmark = pytest.mark.vm
GIB, MIB = 1 << 30, 1 << 20
Record = Callable[[str, object], None]


class Machine(Driver):
    """With 2 GB of memory."""

    def __init__(self) -> None:
        super().__init__()
        done = self.wherry("init", "--disk", "4G", "--memory", "2G", "--no-home", timeout=START_SECONDS)
        assert done.returncode == 0, done.stderr.decode()
        # What it gives back while it rests may take longer than it would stay awake.
        assert self.wherry("config", "set", "idle_suspend=0").returncode == 0
        self.folder = self.path / "home" / "machines" / self.name

    def disk(self, *words: str) -> dict[str, Any]:
        done = self.wherry("disk", *words, "--json", timeout=START_SECONDS)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        data: dict[str, Any] = json.loads(done.stdout)["data"]
        return data

    def taken(self) -> int:
        """Bytes of the disk's file on this computer."""
        return (self.folder / "data.qcow2").stat().st_blocks * 512

    def qemu(self) -> psutil.Process:
        return next(process for process in self.processes() if process.name().startswith("qemu-system"))

    def resident(self) -> int:
        """Bytes of the guest's memory that this computer keeps: the mapping of just that size."""
        lines = Path(f"/proc/{self.qemu().pid}/smaps").read_text().splitlines()
        found = 0
        for number, line in enumerate(lines):
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw-p ", line)
            if match and int(match[2], 16) - int(match[1], 16) == 2 * GIB:
                rss = next(later for later in lines[number:] if later.startswith("Rss:"))
                found += int(rss.split()[1]) << 10
        assert found, "no mapping of that size"
        return found


@pytest.fixture(scope="module")
def made() -> Iterator[Machine]:
    machine = Machine()
    try:
        machine.up()
        yield machine
    finally:
        machine.close()


def test_a_disk_grows_under_a_running_machine(made: Machine) -> None:
    before = int(made.ssh("df -k /var/lib/wherry | tail -1").split()[1]) * 1024
    assert before < 4 * GIB
    done = made.disk("grow", "8G")
    inside = int(made.ssh("df -k /var/lib/wherry | tail -1").split()[1]) * 1024
    assert 7.5 * GIB < inside <= done["total"] < 8 * GIB
    assert made.disk("info")["size"] == 8 * GIB
    # A container sees it at once, and what was there is there.
    assert made.wherry("run", "wherry/hello", "true").returncode == 0
    refused = made.wherry("disk", "grow", "8G")
    assert refused.returncode == 0  # nothing to do is done
    assert made.wherry("disk", "grow", "5G").returncode == 6


def test_two_gigabytes_written_and_deleted_go_back(made: Machine, record_property: Record) -> None:
    made.disk("reclaim")
    before = made.taken()
    made.ssh("dd if=/dev/urandom of=/run/seed bs=1M count=64 2>/dev/null")
    made.ssh(
        "mkdir /var/lib/wherry/x; for n in $(seq 32); do cat /run/seed >/var/lib/wherry/x/$n; done; sync; rm /run/seed",
        timeout=300,
    )
    full = made.taken()
    assert full > before + 2000 * MIB
    made.ssh("rm -r /var/lib/wherry/x; sync")
    deleted = made.taken()
    done = made.disk("reclaim")
    after = made.taken()
    assert after < before + 100 * MIB
    assert done["after"] <= done["before"]
    record_property(
        "table",
        f"data disk, 2 GB written and deleted: {before >> 20} MB before, {full >> 20} full, {deleted >> 20} deleted,"
        f" {after >> 20} reclaimed",
    )


def test_a_backup_of_a_running_machine_brings_everything_back(made: Machine) -> None:
    file = made.path / "kept.qcow2"
    # It goes on writing while the disk is copied.
    assert made.wherry("docker", "volume", "create", "data").returncode == 0
    writes = "n=0; while :; do n=$((n + 1)); echo $n >/data/next; mv /data/next /data/n; sync; sleep 0.2; done"
    assert made.wherry("run", "-d", "--name", "writer", "-v", "data:/data", "wherry/hello", "sh", "-c", writes).returncode == 0
    made.ssh("echo kept >/var/lib/wherry/work/kept")
    read = "cat /var/lib/wherry/docker/volumes/data/_data/n"
    made.wait_until(lambda: made.wherry("ssh", read).stdout.strip().isdigit(), "it writes")
    first = int(made.ssh(read))
    assert made.disk("backup", str(file))["running"] is True
    last = int(made.ssh(read))
    assert last > first, "writers stood still for all of it"
    made.ssh("rm /var/lib/wherry/work/kept")
    assert made.wherry("docker", "rm", "-f", "writer").returncode == 0
    refused = made.wherry("disk", "restore", "--yes", str(file))
    assert refused.returncode == 6 and b"is running" in refused.stderr
    assert made.wherry("stop", timeout=300).returncode == 0
    assert made.wherry("disk", "restore", str(file)).returncode == 6  # nobody to ask
    made.disk("restore", "--yes", str(file))
    made.up()
    serial = (made.folder / "serial.log").read_text(errors="replace")
    assert "recovering journal" not in serial.rpartition("wherry-stage kernel")[2]
    assert made.ssh("cat /var/lib/wherry/work/kept") == "kept\n"
    assert first <= int(made.ssh(read)) <= last + 1
    assert "writer" in made.docker("ps", "-a", "--format", "{{.Names}}")
    made.docker("rm", "-f", "writer")


def test_a_container_without_memory_is_told_what_helps(made: Machine) -> None:
    limits = made.docker("info", "--format", "{{.SwapLimit}} {{.MemoryLimit}} {{.PidsLimit}} {{.CPUCfsQuota}} {{.CPUSet}}")
    assert limits.split() == ["true"] * 5
    done = made.wherry(
        "run", "--name", "hungry", "--memory", "32m", "--memory-swap", "32m", "wherry/hello",
        "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1",
    )  # fmt: skip
    assert done.returncode == 137, done.stderr.decode()  # and not in swap, which the engine can limit
    assert b"swap" not in done.stderr.lower(), done.stderr.decode()
    assert b"a process of hungry was killed" in done.stderr, done.stderr.decode()
    made.wait_until(lambda: any("--memory 64mb" in note for note in made.status()["notes"]), "the note is kept")
    made.docker("rm", "hungry")


def test_memory_goes_back_after_a_container(made: Machine, record_property: Record) -> None:
    assert made.wherry("run", "wherry/hello", "dd", "if=/dev/zero", "of=/dev/null", "bs=1000M", "count=1").returncode == 0
    made.ssh("cat $(find /usr/bin -type f -size +20000k) >/dev/null")  # and files that nobody needs again
    most = made.resident()

    def eased() -> bool:
        made.status()  # paces the look; the guest is not asked for it
        return "memory:" in (made.folder / "keeper.log").read_text().rpartition("ssh connected")[2]

    made.wait_until(eased, "memory was given back", 900)
    assert "zram0" in made.ssh("cat /proc/swaps")
    made.wait_until(lambda: bool(made.status()) and made.resident() < 450 * MIB, "memory went back", 900)
    rest = made.resident()
    if SOAK:
        _measure_idle(made, record_property)
    cost = made.status()["cost"]
    assert cost["processes"]["qemu"] < (450 + 100 + TRANSLATIONS) * MIB and cost["seconds"] > 50
    record_property(
        "table",
        f"memory of a 2 GB machine: {rest >> 20} MB of its own resident at rest, {most >> 20} before; QEMU in all"
        f" {cost['processes']['qemu'] >> 20} MB, {cost['cpu']} % of a processor over {cost['seconds']} s",
    )


def _measure_idle(made: Machine, record_property: Record) -> None:
    """What a minute costs in which nobody uses the machine; nobody asks for its status either."""
    qemu = made.qemu()
    processes = {"QEMU": qemu, "keeper": next(one for one in made.processes() if one.pid == qemu.ppid())}
    time.sleep(120)  # until the connection's questions are few
    before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    time.sleep(60)
    used = {name: (sum(process.cpu_times()[:2]) - before[name]) / 60 for name, process in processes.items()}
    record_property("table", "idle, 60 s: " + ", ".join(f"{name} {100 * part:.2f} %" for name, part in used.items()))
