"""The data disk: somebody else's is refused untouched, a formatting that was cut short is begun again, a damaged one is
repaired or read only when it is asked for."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.disksamples import FOREIGN, MIB, blank, digest, put, tool
from tests.vm.driver import SOAK, START_SECONDS, Driver

pytestmark = pytest.mark.vm
GIB = 1 << 30


class Machine(Driver):
    """A machine with a small disk, not started, and what is in that disk."""

    def __init__(self) -> None:
        super().__init__()
        done = self.wherry("init", "--disk", "1G", timeout=START_SECONDS)
        assert done.returncode == 0, done.stderr.decode()
        self.folder = self.path / "home" / "machines" / self.name
        self.disk = self.folder / "data.qcow2"

    def raw(self) -> Path:
        """The whole virtual content as a sparse raw file; made anew by each call."""
        raw = self.path / "raw"
        raw.unlink(missing_ok=True)
        self._img("convert", "-f", "qcow2", "-O", "raw", self.disk, raw)
        return raw

    def put(self, raw: Path) -> None:
        """Make `raw` the content of the data disk, in a file of its own."""
        self.disk.unlink(missing_ok=True)
        self._img("convert", "-f", "raw", "-O", "qcow2", raw, self.disk)

    def header(self) -> bytes:
        with self.raw().open("rb") as file:
            file.seek(GIB - 4096)
            return file.read().rstrip(b"\0")

    @staticmethod
    def _img(*words: str | Path) -> None:
        subprocess.run([tool("qemu-img"), *words], check=True)


@pytest.fixture(scope="module")
def made() -> Iterator[Machine]:
    """For tests that leave nothing behind but another data disk."""
    machine = Machine()
    try:
        yield machine
    finally:
        machine.close()


@pytest.fixture
def fresh() -> Iterator[Machine]:
    machine = Machine()
    try:
        yield machine
    finally:
        machine.close()


@pytest.mark.parametrize("name", FOREIGN if SOAK else ("xfs", "gpt", "middle"))
def test_a_disk_of_somebody_else_is_refused_untouched(made: Machine, name: str) -> None:
    make, words = FOREIGN[name]
    raw = blank(made.path / "foreign", GIB)
    make(raw)
    made.put(raw)
    content, file = digest(made.raw()), made.disk.read_bytes()
    done = made.wherry("up", "--json", timeout=START_SECONDS)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["kind"]) == (6, "refused"), done.stderr.decode()
    assert f"it holds {words}" in error["message"] and "not touched" in error["message"]
    assert "data.qcow2 back" in error["hint"] and "repair --new-disk default" in error["hint"]
    assert made.disk.read_bytes() == file
    assert digest(made.raw()) == content
    assert made.wherry("status").returncode != 0
    assert made.processes() == []


def qemu(machine: Machine) -> psutil.Process | None:
    for process in machine.processes():
        try:
            if process.name().startswith("qemu-system"):
                return process
        except psutil.Error:
            continue
    return None


FORMATTING = b"wherry data disk, formatting\n"
LAYOUT = b"wherry data disk, layout 1\n"


def kill_while_formatting(machine: Machine, delay: float) -> bytes:
    """SIGKILL to QEMU `delay` seconds after the header reached the file; the header that is left in the disk."""
    machine.disk.unlink(missing_ok=True)
    machine._img("create", "-q", "-f", "qcow2", machine.disk, "1G")
    with machine.popen("up", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        while FORMATTING not in machine.disk.read_bytes():
            assert up.poll() is None, "it ended before it wrote"
            time.sleep(0.002)
        time.sleep(delay)
        victim = qemu(machine)
        assert victim is not None
        victim.kill()
        assert up.wait(120) != 0
    return machine.header()


def test_a_kill_in_the_middle_of_formatting_is_begun_again(fresh: Machine) -> None:
    found: list[bytes] = []
    # A formatting takes a second under emulation, and the mount behind it another. Right at the header, QEMU may not have
    # linked it into the disk yet: then the disk is still blank, on a slow computer for longer.
    delays = [random.uniform(0, 2) for _ in range(20)] if SOAK else [0.0, 0.02, 0.1, 0.5, 1.0, 2.0]
    for delay in delays:
        found.append(kill_while_formatting(fresh, delay))
        print(f"killed after {delay:.2f} s: {found[-1]!r}")
        assert found[-1] in (b"", FORMATTING, LAYOUT)
        if SOAK:
            fresh.up()
            # As if the plug were pulled: what is ready is on the disk.
            assert fresh.wherry("stop", "--force", timeout=300).returncode == 0
            assert fresh.header() == LAYOUT
        elif found[-1] == FORMATTING:
            break
    assert FORMATTING in found
    fresh.up()
    assert fresh.wherry("stop", "--force", timeout=300).returncode == 0
    assert fresh.header() == LAYOUT
    fresh.up()
    assert fresh.wherry("run", "wherry/hello", "true").returncode == 0


def test_a_lost_disk_is_not_replaced_unasked(made: Machine) -> None:
    made.disk.unlink(missing_ok=True)
    done = made.wherry("up")
    assert done.returncode == 6 and b"is gone" in done.stderr and b"repair --new-disk default" in done.stderr
    assert not made.disk.exists()
    assert made.wherry("repair", "--new-disk", timeout=START_SECONDS).returncode == 0
    assert made.disk.stat().st_size < MIB
    again = made.wherry("repair", "--new-disk", timeout=START_SECONDS)
    assert again.returncode == 6 and b"never overwritten" in again.stderr


def damage(raw: Path) -> None:
    """A block of the inode table that holds nothing but files of `fill`, and a group descriptor. (What is lost of the
    engine's own files no e2fsck brings back, and what it then does is not the matter here.)"""
    found: list[str] = []
    for number in range(1, 201):
        words = [tool("debugfs"), "-R", f"imap /kept/f{number}", raw]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found.append(done.stdout.partition("located at block ")[2].partition(",")[0])
    full = next(block for block in found[20:] if found.count(block) == 4096 // 256)
    assert full != found[0]
    put(raw, int(full) * 4096, os.urandom(4096))
    put(raw, 4096 + 64, os.urandom(24))  # where group 1 has its bitmaps and inodes
    subprocess.run([tool("debugfs"), "-w", "-R", "ssv state 2", raw], check=True, capture_output=True)


def test_a_damaged_file_system_is_not_mounted_and_is_repaired_when_asked(fresh: Machine) -> None:
    fresh.up()
    fill = "mkdir /var/lib/wherry/kept && cd /var/lib/wherry/kept && for n in $(seq 1 200); do echo file $n >f$n; done; sync"
    fresh.ssh(fill)
    assert fresh.wherry("stop", timeout=300).returncode == 0
    raw = fresh.raw()
    damage(raw)
    assert subprocess.run([tool("e2fsck"), "-p", shutil.copy(raw, raw.with_name("copy"))], capture_output=True).returncode & 4
    fresh.put(raw)
    content = digest(raw)

    done = fresh.wherry("up", "--json", timeout=START_SECONDS)
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 6 and "the data disk is damaged" in error["message"]
    assert "wherry repair default" in error["hint"] and "--read-only" in error["hint"]
    assert "UNEXPECTED INCONSISTENCY" in error["detail"]

    # Read-only: the engine does not run, what can be read is copied out, nothing is written.
    content = digest(fresh.raw())
    done = fresh.wherry("repair", "--read-only", timeout=START_SECONDS)
    assert done.returncode == 0, done.stderr.decode()
    assert fresh.ssh("cat /var/lib/wherry/kept/f1") == "file 1\n"
    assert fresh.wherry("ssh", "touch /var/lib/wherry/x").returncode != 0
    assert fresh.wherry("cp", "default:/var/lib/wherry/kept/f1", "out").returncode == 0
    assert (fresh.path / "out").read_text() == "file 1\n"
    assert fresh.ssh("ps -o args | grep -c '^/usr/sbin/dockerd' || true") == "0\n"
    assert "read-only" in " ".join(fresh.status()["notes"])
    assert fresh.wherry("stop", timeout=300).returncode == 0
    assert digest(fresh.raw()) == content

    # Repaired: it says so, what was not hit is there, and the engine works.
    done = fresh.wherry("repair", timeout=START_SECONDS)
    assert done.returncode == 0, done.stderr.decode()
    assert any("repaired" in note for note in fresh.status()["notes"])
    assert "e2fsck: Pass 5" in (fresh.folder / "serial.log").read_text(errors="replace")
    assert fresh.ssh("cat /var/lib/wherry/kept/f1") == "file 1\n"
    assert fresh.wherry("run", "wherry/hello", "true").returncode == 0
    refused = fresh.wherry("repair", "--undo", timeout=START_SECONDS)
    assert refused.returncode == 6 and b"is running" in refused.stderr
    assert fresh.wherry("stop", timeout=300).returncode == 0

    # And back, as if nothing had been done.
    assert fresh.wherry("repair", "--undo", timeout=START_SECONDS).returncode == 0
    assert digest(fresh.raw()) == content
