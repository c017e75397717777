"""What the keeper asks of the data disk at rest, on a file system of this computer: trim, still."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .helpers import SCRIPTS, helper

MIB = 1 << 20


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """An ext4 in a sparse file, as the guest mounts it: its folder; the file is `disk` beside it."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists():
        pytest.skip("needs root, mkfs.ext4 and loop devices")
    disk, folder = tmp_path / "disk", tmp_path / "mounted"
    folder.mkdir()
    with disk.open("wb") as file:
        file.truncate(600 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-J", "size=16", disk], check=True)
    if subprocess.run(["mount", "-o", "loop,noatime,discard", disk, folder], check=False).returncode != 0:
        pytest.skip("no loop device can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def used(folder: Path) -> int:
    return (folder.parent / "disk").stat().st_blocks * 512


def trim(folder: Path) -> int:
    done = subprocess.run([helper("trim"), folder], capture_output=True, text=True, check=True)
    return int(done.stdout)


def fill(folder: Path, size: int) -> None:
    with (folder / "file").open("wb") as file:
        file.write(os.urandom(size))
        os.fsync(file.fileno())


def test_trim_gives_back_what_is_free_every_time(mounted: Path) -> None:
    trim(mounted)
    before = used(mounted)
    # Without "discard", what is deleted stays in the file until somebody trims.
    subprocess.run(["mount", "-o", "remount,nodiscard", mounted], check=True)
    for _ in range(2):
        fill(mounted, 100 * MIB)
        assert used(mounted) > before + 90 * MIB
        (mounted / "file").unlink()
        os.sync()
        assert used(mounted) > before + 90 * MIB
        assert trim(mounted) > 400 * MIB
        assert used(mounted) < before + 5 * MIB


def test_trim_looks_at_groups_that_were_trimmed_before(mounted: Path) -> None:
    first = trim(mounted)
    assert trim(mounted) == first > 400 * MIB


def test_trim_says_what_cannot_be(tmp_path: Path) -> None:
    done = subprocess.run([helper("trim"), tmp_path / "none"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "No such file" in done.stderr
    assert subprocess.run([helper("trim")], capture_output=True, check=False).returncode == 2


def still(folder: Path, seconds: int = 60) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([helper("still"), folder, str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"still\n"
    return process


def writing(folder: Path) -> threading.Thread:
    thread = threading.Thread(target=fill, args=(folder, MIB), daemon=True)
    thread.start()
    return thread


def test_who_writes_waits_until_the_line_comes(mounted: Path) -> None:
    process = still(mounted)
    writer = writing(mounted)
    writer.join(0.5)
    assert writer.is_alive()
    out, _ = process.communicate(b"\n", timeout=60)
    assert (process.returncode, out) == (0, b"thawed\n")
    writer.join(60)
    assert not writer.is_alive()


@pytest.mark.parametrize("end", ["closed", "signal", "time"])
def test_it_goes_on_whatever_becomes_of_who_asked(mounted: Path, end: str) -> None:
    process = still(mounted, 1 if end == "time" else 60)
    if end == "signal":
        process.send_signal(signal.SIGTERM)
    if end == "time":
        assert process.wait(60) == 1
    out, _ = process.communicate(timeout=60)
    assert out == (b"late\n" if end == "time" else b"thawed\n")
    writer = writing(mounted)
    writer.join(60)
    assert not writer.is_alive()


def test_what_is_on_the_disk_is_clean(mounted: Path, tmp_path: Path) -> None:
    fill(mounted, MIB)
    process = still(mounted)
    copy = shutil.copy(mounted.parent / "disk", tmp_path / "copy")
    process.communicate(b"\n", timeout=60)
    checked = subprocess.run(["e2fsck", "-n", copy], capture_output=True, text=True, check=False)
    assert checked.returncode == 0 and "recovering journal" not in checked.stdout, checked.stdout


def ease(tmp_path: Path, cached: int, *, reclaims: bool = True) -> tuple[str, str, str]:
    """What it says, what it asks the kernel to reclaim, and how small the pieces are that are told of afterwards."""
    facts = "MemTotal: 2048000 kB\nMemFree: 100000 kB\nBuffers: 1000 kB\nCached: {} kB\nShmem: 500 kB\nSReclaimable: 2000 kB\n"
    (tmp_path / "meminfo").write_text(facts.format(cached))
    if reclaims:
        (tmp_path / "memory.reclaim").touch()
    else:
        (tmp_path / "memory.reclaim").mkdir()
    (tmp_path / "compact").touch()
    (tmp_path / "order").write_text("9\n")
    environment = {
        "WHERRY_CGROUP": str(tmp_path), "WHERRY_MEMINFO": f"{tmp_path}/meminfo", "WHERRY_COMPACT": f"{tmp_path}/compact",
        "WHERRY_REPORTING": f"{tmp_path}/order", "WHERRY_REPORTS": "0", "PATH": os.environ["PATH"],
    }  # fmt: skip
    done = subprocess.run(["sh", SCRIPTS / "ease"], env=environment, capture_output=True, text=True, check=True)
    assert (tmp_path / "compact").read_text() == "1\n"
    reclaim = (tmp_path / "memory.reclaim").read_text() if reclaims else ""
    return done.stdout, reclaim, (tmp_path / "order").read_text()


def test_ease_gives_back_all_but_192_mb_of_files(tmp_path: Path) -> None:
    kib = 400000 + 1000 + 2000 - 500 - 196608
    assert ease(tmp_path, 400000) == ("100000 100000\n", f"{kib * 1024} swappiness=0\n", "9\n")


def test_ease_of_few_files_drops_none(tmp_path: Path) -> None:
    assert ease(tmp_path, 190000) == ("100000 100000\n", "", "9\n")


def test_ease_does_not_mind_that_there_was_less(tmp_path: Path) -> None:
    assert ease(tmp_path, 400000, reclaims=False) == ("100000 100000\n", "", "9\n")
