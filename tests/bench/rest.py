"""What a machine costs while nobody uses it, and what it gives back: processor, memory, disk."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any, Final

import psutil

from tests.bench.floor import Floor
from tests.bench.place import done, keeper, qemu, started, used
from tests.bench.results import Results, Row
from tests.vm.driver import Driver

WINDOW: Final = 60.0  # seconds
WINDOWS: Final = 5  # memory has five minutes to go back
SETTLED: Final = 10.0  # seconds, and a start is over
FLOOR_WINDOW: Final = 20.0
WRITTEN: Final = 2000  # MB
# 64 MB that do not compress, as often as it takes: their making costs more than their writing.
FILL: Final = (
    "dd if=/dev/urandom of=/run/seed bs=1M count=50 2>/dev/null; mkdir /var/lib/wherry/x;"
    f" for n in $(seq {WRITTEN // 50}); do cat /run/seed >/var/lib/wherry/x/$n; done; sync; rm /run/seed"
)


def per_cent(processes: list[psutil.Process], wait: float) -> list[float]:
    """Of one processor, for each of them, over so many seconds."""
    before = [used(process) for process in processes]
    began = time.monotonic()
    time.sleep(wait)  # what is measured is that nothing is done
    passed = time.monotonic() - began
    return [(used(process) - was) / passed * 100 for process, was in zip(processes, before, strict=True)]


def resident(process: psutil.Process) -> float | None:
    """MB of the guest's memory that this computer keeps (proc_pid_smaps(5)): QEMU's largest mapping. None but on Linux."""
    smaps = Path(f"/proc/{process.pid}/smaps")
    if not smaps.exists():
        return None
    found, size = 0.0, 0
    for mapping in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps.read_text(), flags=re.MULTILINE):
        extent, rss = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", mapping), re.search(r"^Rss: +(\d+) kB", mapping, re.MULTILINE)
        if extent and rss and int(extent[2], 16) - int(extent[1], 16) > size:
            size, found = int(extent[2], 16) - int(extent[1], 16), int(rss[1]) * 1024 / 1e6
    return found


def idle(results: Results, rounds: int, _calls: int) -> None:
    """A container that used 1 GB has ended; then so many minutes of nothing."""
    loads: list[list[float]] = []
    with started(results) as driver:
        floor, machine, watcher = Floor.of(driver), qemu(driver), keeper(driver)
        done(driver, "run", "wherry/hello", "dd", "if=/dev/zero", "of=/dev/null", "bs=1000M", "count=1")
        full = machine.memory_info().rss / 1e6
        for _ in range(min(rounds, WINDOWS)):
            loads.append(per_cent([machine, watcher], WINDOW))
        at_rest, whole, ours = resident(machine), machine.memory_info().rss / 1e6, watcher.memory_info().rss / 1e6
        done(driver, "stop")
        base, bare = at_floor(floor) if floor else ([], [])
    against = "QEMU with an empty guest"
    row = Row("idle, QEMU", against, "% of a CPU", [load[0] for load in loads], base)
    results.add(row.at_most(3, alone=True))
    results.add(Row("idle, keeper", "", "% of a CPU", [load[1] for load in loads]).at_most(0.3))
    late = rounds >= WINDOWS  # the goals are those of five minutes after
    after = f"{min(rounds, WINDOWS)} min after 1 GB was used"
    if at_rest is not None:
        row = Row(f"guest memory held, {after}", "", "MB", [at_rest])
        results.add(row.at_most(450) if late else row)
    row = Row(f"QEMU in all, {after}", against, "MB", [whole], bare)
    results.add(row.at_most(800, alone=True) if late else row)
    results.add(Row("keeper's memory", "", "MB", [ours]))
    results.cost("QEMU right after 1 GB was used", memory_mb=round(full))


def at_floor(floor: Floor) -> tuple[list[float], list[float]]:
    """Per cent of a processor and MB that QEMU takes for a guest that does nothing at all."""
    with floor.at_rest() as empty:
        per_cent([empty], SETTLED)
        return [per_cent([empty], FLOOR_WINDOW)[0] for _ in range(2)], [empty.memory_info().rss / 1e6]


def taken(driver: Driver) -> float:
    """MB of the disk's file on this computer."""
    return (driver.path / "home" / "machines" / driver.name / "data.qcow2").stat().st_blocks * 512 / 1e6


def reclaim(driver: Driver) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(done(driver, "disk", "reclaim", "--json"))["data"]
    return data


def disk(results: Results, rounds: int, _calls: int) -> None:
    more, full = [], []
    with started(results, "--disk", "8G") as driver:
        for _ in range(rounds):
            reclaim(driver)
            before = taken(driver)
            driver.ssh(FILL, timeout=600)
            full.append(taken(driver) - before)
            driver.ssh("rm -r /var/lib/wherry/x; sync", timeout=300)
            reclaim(driver)
            more.append(taken(driver) - before)
    row = Row(f"disk file, {WRITTEN / 1000:g} GB written, deleted, reclaimed", "written only", "MB more", more, full)
    results.add(row.at_most(100, alone=True))
