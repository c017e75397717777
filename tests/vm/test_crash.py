"""What a crash, a full disk or a hand in the wrong folder can do to a machine, and the way back from each."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import host
from tests.loopback import free_port
from tests.vm.driver import SOAK, START_SECONDS, Driver, Home, answers
from tests.vm.test_kill import check_nothing_left, end, ours

pytestmark = pytest.mark.vm
needs_mount = pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")


def folder_of(driver: Home, name: str = "default") -> Path:
    return driver.path / "home" / "machines" / name


def kill_keeper(driver: Driver) -> int:
    """The pid of the QEMU that goes on."""
    found = ours(driver)
    end(found["keeper"])
    return int(found["qemu"].pid)


def test_hands_in_the_folder_of_a_machine_that_runs(driver: Driver) -> None:
    """Each time the keeper is killed as well, and the next one takes over the same QEMU with the same container."""
    driver.up()
    folder = folder_of(driver)
    driver.docker("run", "-d", "--name", "witness", "wherry.internal/hello", "sleep", "100000")
    began = driver.docker("inspect", "--format", "{{.State.StartedAt}}", "witness")
    qemu = kill_keeper(driver)

    def goes_on() -> None:
        assert ours(driver)["qemu"].pid == qemu
        assert driver.docker("inspect", "--format", "{{.State.StartedAt}}", "witness") == began
        assert driver.status()["status"] == "running"

    # state.json is garbage: QEMU is known by its name and its folder.
    (folder / "state.json").write_bytes(b"\0" * 700)
    assert driver.status()["status"] == "broken"
    driver.up()
    goes_on()
    # It is lost, and so are the lock that QEMU holds and the one of the keeper.
    assert kill_keeper(driver) == qemu
    for name in ("state.json", "lock.qemu", "lock"):
        (folder / name).unlink()
    assert driver.status()["status"] == "broken"
    driver.up()
    goes_on()
    # machine.toml as well: repair makes it anew, as it was, and takes over too.
    assert kill_keeper(driver) == qemu
    before = (folder / "machine.toml").read_text()
    (folder / "machine.toml").write_bytes(b"cpus = \0")
    assert driver.wherry("up").returncode == 1
    done = driver.wherry("repair")
    assert done.returncode == 0, done.stderr.decode()
    assert (folder / "machine.toml").read_text() == before
    goes_on()
    # A keeper that stands still answers nobody: commands say so in time, repair ends it.
    ours(driver)["keeper"].suspend()
    done = driver.wherry("docker", "ps", timeout=60)
    assert done.returncode == 125
    assert b"gives no answer" in done.stderr
    done = driver.wherry("repair", timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    goes_on()
    check_moved(driver)


def check_moved(driver: Driver) -> None:
    """A machine whose folder is moved is stopped cleanly: nobody would find it. What is made in its place is another one."""
    driver.docker("run", "--rm", "-v", "store:/data", "wherry.internal/hello", "sh", "-c", "echo precious > /data/file")
    folder_of(driver).rename(folder_of(driver, "moved"))
    driver.wait_until(lambda: driver.processes() == [], "the keeper of the moved folder ends")
    assert [item["name"] for item in json.loads(driver.wherry("list", "--json").stdout)["data"]] == ["moved"]
    assert b"wherry-stop off" in (folder_of(driver, "moved") / "serial.log").read_bytes()
    if SOAK:
        driver.up("moved")
        assert driver.wherry("--machine", "moved", "run", "-v", "store:/data", "wherry/hello", "cat", "/data/file").stdout == (
            b"precious\n"
        )
        # Deleted by hand while it runs, and made anew at once: two folders, one after the other, never two at once.
        shutil.rmtree(folder_of(driver, "moved"))
        driver.up("moved")
        assert sorted(ours(driver)) == ["keeper", "qemu"]


def test_a_pid_that_is_somebody_elses_by_now(driver: Driver) -> None:
    """state.json tells of a QEMU and a keeper whose pids were given to others: they are never signalled."""
    assert driver.wherry("init", "--disk", "2G", timeout=300).returncode == 0
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        stamp = host.current().process_stamp(bystander.pid)
        state = {
            "version": 1, "status": "running", "token": "0123456789abcdef", "qemu_pid": bystander.pid, "qemu_stamp": stamp,
            "keeper_pid": bystander.pid, "ssh_port": 22, "timeline": [["ready", 18.0]],
        }  # fmt: skip
        (folder_of(driver) / "state.json").write_text(json.dumps(state))
        (folder_of(driver) / "keeper.log").touch()
        assert driver.status()["status"] == "stopped"
        for words in (["stop"], ["stop", "--force"], ["repair"], ["delete", "--force", "--yes"]):
            done = driver.wherry(*words)
            assert done.returncode == 0, done.stderr.decode()
        assert bystander.poll() is None
        bystander.kill()


def test_two_homes_with_a_machine_of_the_same_name(home: Home) -> None:
    other = {"WHERRY_HOME": str(home.path / "other")}
    for env in ({}, other):
        assert home.wherry("init", "--disk", "2G", timeout=300, env=env).returncode == 0
    (folder_of(home) / "machine.toml").unlink()
    assert home.wherry("status").returncode == 1
    assert home.wherry("status", env=other).returncode == 3
    assert home.wherry("delete", "--yes", env=other).returncode == 0
    assert folder_of(home).is_dir()


def test_init_and_delete_killed_at_any_moment(home: Home) -> None:
    """A machine is there whole, or not at all; the next command clears away what was half-way."""
    dice = random.Random(7)
    assert home.wherry("init", "--disk", "2G", timeout=300).returncode == 0  # the ISO is in the cache from here on
    for number in range(60 if SOAK else 12):
        verb = ["delete", "--yes"] if folder_of(home).exists() else ["init", "--disk", "2G"]
        with home.popen(*verb, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:
            time.sleep(dice.uniform(0.05, 0.9))
            command.kill()
        listed = json.loads(home.wherry("list", "--json").stdout)["data"]
        assert [item["status"] for item in listed] in ([], ["stopped"]), (number, listed)
    if not folder_of(home).exists():
        assert home.wherry("init", "--disk", "2G", timeout=300).returncode == 0
    assert home.wherry("delete", "--yes").returncode == 0
    home.wherry("init", "--disk", "2G", timeout=300)
    check_nothing_left(home)


@pytest.fixture
def small() -> Iterator[Driver]:
    """A home on a file system of its own, ext4 in a file; the ISO cache is elsewhere."""
    driver = Driver()
    home = driver.path / "home"
    home.mkdir()
    (driver.path / "cache").mkdir()
    try:
        mount_small(driver.path / "home.img", home)
        (home / "cache").symlink_to(driver.path / "cache")
        yield driver
    finally:
        driver.close()
        subprocess.run(["umount", "-l", home], check=False)
        shutil.rmtree(driver.path, ignore_errors=True)


def mount_small(image: Path, place: Path) -> None:
    """What a full disk is in life: ext4, which reserves, delays and gives back. A tmpfs where there is no loop device."""
    with image.open("wb") as file:
        file.truncate(600 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
    # The loop device goes with the mount.
    if subprocess.run(["mount", "-o", "loop", image, place], check=False).returncode != 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "none", place], check=True)


def remount(driver: Driver, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", driver.path / "home"], check=True)


def fill(driver: Driver) -> Path:
    """Take all the space there is."""
    filler = driver.path / "home" / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
            os.fsync(file.fileno())  # gives back what was reserved for more than it takes
    return filler


@needs_mount
def test_a_full_and_a_read_only_home(small: Driver) -> None:
    home = small.path / "home"
    assert small.wherry("init", "--disk", "2G", "second", timeout=300).returncode == 0
    filler = fill(small)
    done = small.wherry("init", "--disk", "2G")
    assert done.returncode == 1
    assert b"no space left in " + os.fsencode(home) in done.stderr
    done = small.wherry("up", "second")
    assert done.returncode == 1
    assert b"no space left" in done.stderr
    assert b"Errno" not in done.stderr
    filler.unlink()
    small.wait_until(lambda: small.processes() == [], "the keeper that could not begin has ended")
    remount(small, "ro")
    for words in (["init"], ["up"], ["up", "second"], ["up", "second", "--memory", "1G"]):
        done = small.wherry(*words)
        assert done.returncode == 1, words
        assert b"cannot be written: it is read-only." in done.stderr, done.stderr
        assert b"WHERRY_HOME says where machines are kept." in done.stderr
    # What only looks goes on.
    assert small.wherry("status", "second").returncode == 3
    assert small.wherry("list", "-q").stdout == b"second\n"
    remount(small, "rw")
    check_nothing_left(small)
    assert small.processes() == []


@needs_mount
def test_a_disk_that_finds_no_more_space_is_held_and_goes_on(small: Driver) -> None:
    small.up()
    small.docker("run", "--rm", "-v", "store:/data", "wherry.internal/hello", "sh", "-c", "echo precious > /data/file; sync")
    port = free_port()
    small.docker(
        "run", "-d", "--name", "web", "-p", f"{port}:80", "wherry.internal/hello", "httpd", "-f", "-p", "80", "-h", "/www"
    )
    small.wait_until(lambda: answers(port), "the port answers")
    filler = fill(small)
    script = "dd if=/dev/urandom of=/data/big bs=1M count=40 conv=fsync 2>/dev/null && md5sum /data/big; md5sum < /data/big"
    with small.popen(
        "run", "--rm", "-v", "store:/data", "wherry/hello", "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as writer:
        small.wait_until(lambda: small.status()["status"] == "paused", "the machine is held")
        assert "paused: this computer's disk is full (" in small.status()["problem"]
        assert str(folder_of(small)) in small.status()["problem"]
        assert small.wherry("status").returncode == 1
        done = small.wherry("docker", "ps", timeout=60)
        assert done.returncode == 125
        assert b"this computer's disk is full (" in done.stderr and os.fsencode(folder_of(small)) in done.stderr
        with socket.socket(socket.AF_UNIX) as engine:
            engine.settimeout(60)
            engine.connect(small.status()["socket"])
            engine.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
            answer = engine.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"disk is full" in answer
        assert not answers(port)
        # Nothing has waited for space: it is held as before, and has been all the time.
        found = small.status()
        assert found["status"] == "paused"
        assert not any("the machine goes on" in note for note in found["notes"] if not note.startswith("paused: "))
        # The next keeper finds it held as well.
        end(ours(small)["keeper"])
        done = small.wherry("up", timeout=START_SECONDS)
        assert done.returncode == 1
        assert b"default is paused: this computer's disk is full (" in done.stderr, done.stderr.decode()
        assert small.status()["status"] == "paused"
        filler.unlink()
        small.wait_until(lambda: small.status()["status"] == "running", "it goes on")
        small.wait_until(lambda: answers(port), "the port answers again")
        small.docker("rm", "-f", "web")
        writer.kill()
    assert small.docker("run", "--rm", "-v", "store:/data", "wherry.internal/hello", "cat", "/data/file") == "precious\n"
    small.wait_until(lambda: small.ssh("docker ps -q") == "", "the writer ends")
    # wherry stop takes over as well, to end it.
    kill_keeper(small)
    assert small.wherry("stop", timeout=180).returncode == 0
    assert b"wherry-stop off" in small.wherry("logs", "serial", "-n", "3").stdout
    assert small.processes() == []
    qcow = subprocess.run(["qemu-img", "check", folder_of(small) / "data.qcow2"], check=False, capture_output=True)
    assert qcow.returncode in (0, 3), qcow
