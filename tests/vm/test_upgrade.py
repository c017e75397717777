"""A machine moves to another ISO and back with its data; one that does not start is left again; nothing is lost in between."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher import host, isofile
from tests.vm.driver import SOAK, START_SECONDS, Driver

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parent.parent.parent
BUILT = ROOT / f"build/wherry-{host.native_arch()}.iso"
IMAGE = "wherry.internal/hello"


def variant(folder: Path, name: str, *, containerd: str | None = None, broken: bool = False) -> Path:
    """The ISO that was built, with other bytes at its end and another name for its versions; `broken`: its root is no more."""
    path = folder / f"{name}.iso"
    shutil.copyfile(BUILT, path)
    with path.open("r+b") as file:
        file.seek(0, 2)
        file.write(name.encode().ljust(2048, b"\0"))
        if broken:
            offset, size = isofile.root_extent(BUILT)
            # The first four bytes are looked at when it is imported; the superblock behind them is the guest's to find out.
            file.seek(offset + 4)
            file.write(random.Random(3).randbytes(4096))
            file.seek(offset + size - 65536)
            file.write(random.Random(4).randbytes(65536))
    manifest: dict[str, Any] = json.loads(BUILT.with_suffix(".json").read_text())
    with path.open("rb") as file:
        manifest |= {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": path.stat().st_size, "version": name}
    for package in manifest["packages"]:
        if containerd is not None and package["name"] == "containerd":
            package["version"] = containerd
    path.with_suffix(".json").write_text(json.dumps(manifest))
    return path


def sha(path: Path) -> str:
    return str(json.loads(path.with_suffix(".json").read_text())["sha256"])


@pytest.fixture(scope="module")
def isos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`old` says that it has containerd 1, from which engine-data.toml knows no way back."""
    folder = tmp_path_factory.mktemp("isos")
    return {
        "old": variant(folder, "0.0.1", containerd="1.7.24~ds1-6"),
        "new": variant(folder, "0.0.2"),
        "broken": variant(folder, "0.0.3", containerd="1.7.24~ds1-6", broken=True),
    }


@pytest.fixture(scope="module")
def driver(isos: dict[str, Path]) -> Iterator[Driver]:
    fresh = Driver()
    try:
        fresh.up("--iso", str(isos["old"]))
        fresh.docker("run", "-d", "--name", "keeps-going", "--restart", "always", IMAGE, "sleep", "100000")
        write(fresh, "first")
        yield fresh
    finally:
        fresh.close()


def write(driver: Driver, text: str) -> None:
    driver.docker("run", "--rm", "-v", "store:/data", IMAGE, "sh", "-c", f"echo {text} > /data/file")


def read(driver: Driver) -> str:
    return driver.docker("run", "--rm", "-v", "store:/data", IMAGE, "cat", "/data/file").strip()


def qemu(driver: Driver) -> psutil.Process:
    [found] = [process for process in driver.processes() if process.name().startswith("qemu-system")]
    return found


def runs_with(driver: Driver, iso: Path) -> bool:
    """By what QEMU was started with, and by what the machine says."""
    return any(sha(iso) in word for word in qemu(driver).cmdline()) and driver.status()["iso"] == sha(iso)


def folder(driver: Driver) -> Path:
    return driver.path / "home/machines/default"


def upgrade(driver: Driver, *words: str) -> subprocess.CompletedProcess[bytes]:
    return driver.wherry("upgrade", *words, timeout=2 * START_SECONDS)


def test_there_and_back_over_a_step_without_a_way_back(driver: Driver, isos: dict[str, Path]) -> None:
    new = str(isos["new"])
    pid = qemu(driver).pid
    for words, why in ((("--yes",), "containerd 2 moves"), (("--copy",), "nobody to ask"), (("--no-copy",), "nobody to ask")):
        done = upgrade(driver, "--iso", new, *words)
        assert (done.returncode, why in done.stderr.decode()) == (6, True), done.stderr.decode()
    assert qemu(driver).pid == pid  # nothing was done to a machine that was not asked about

    done = upgrade(driver, "--iso", new, "--copy", "--yes")
    assert done.returncode == 0, done.stderr.decode()
    assert runs_with(driver, isos["new"])
    assert read(driver) == "first"
    driver.wait_until(lambda: driver.container_state("keeps-going") == "running", "the restart policy holds")
    [copy] = folder(driver).glob("data-before-*.qcow2")
    assert subprocess.run(["qemu-img", "check", "-q", copy], check=False).returncode == 0
    write(driver, "second")

    done = upgrade(driver, "--rollback", "--yes")
    assert (done.returncode, f"puts {copy.name} back" in done.stderr.decode()) == (6, True), done.stderr.decode()
    done = upgrade(driver, "--rollback", "--copy", "--yes")
    assert done.returncode == 0, done.stderr.decode()
    assert runs_with(driver, isos["old"])
    assert read(driver) == "first"
    assert [path.name for path in folder(driver).glob("data-*.qcow2")] == [copy.name.replace("before", "after")]


def test_an_iso_that_does_not_start_is_left_again(driver: Driver, isos: dict[str, Path]) -> None:
    driver.up()
    write(driver, "third")
    done = upgrade(driver, "--iso", str(isos["broken"]), "--yes")
    assert done.returncode == 1, done.stderr.decode()
    assert "went back to the one before, with which it runs now" in done.stderr.decode()
    assert runs_with(driver, isos["old"])
    assert read(driver) == "third"
    assert upgrade(driver, "--rollback").returncode == 6  # to what it never got away from


def test_kill_9_in_the_middle(driver: Driver, isos: dict[str, Path]) -> None:
    """Of the command, the keeper, QEMU: afterwards it has the one ISO or the other, starts, and has its data."""
    chance = random.Random(7)
    driver.up()
    write(driver, "last")
    seconds = max(2.0, 1.5 * driver.status()["timeline"][-1][1])
    for number in range(24 if SOAK else 2):
        iso = isos["old" if driver.status()["iso"] == sha(isos["new"]) else "new"]
        words = ["upgrade", "--yes", *(("--rollback", "--copy") if iso == isos["old"] else ("--iso", str(iso), "--copy"))]
        with driver.popen(*words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as command:
            assert command.stderr is not None
            time.sleep(chance.uniform(0.2, seconds))
            victims = [*driver.processes(), psutil.Process(command.pid)]
            chance.choice(sorted(victims, key=lambda process: process.pid)).kill()
            told = command.communicate(timeout=2 * START_SECONDS)[1].decode()
        status = driver.status()
        assert status["status"] in ("running", "starting", "stopped", "broken"), told
        driver.up()
        assert driver.status()["iso"] in (sha(isos["old"]), sha(isos["new"])), (number, told)
        assert runs_with(driver, isos["old"]) or runs_with(driver, isos["new"]), (number, told)
        assert read(driver) == "last", (number, told)
        assert list(folder(driver).glob(".*")) == [], (number, told)
        for kept in folder(driver).glob("data-after-*"):
            kept.unlink()
