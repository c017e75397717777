"""Suspend and resume of a machine with one container, against a cold start of the same machine and work on the bare file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

from tests.bench.place import HELLO, done, started, timeline
from tests.bench.results import Results, Row, repeated, seconds
from tests.vm.driver import Driver

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK: Final = 1 << 20
CAN_FORGET: Final = hasattr(os, "posix_fadvise")  # macOS has nothing like it without being root
NAMES: Final = ("cold", "suspend", "pack", "size", "plain", "cached", "unpack", "timeline", "uncached")
CONTAINER: Final = ("-d", "--name", "web", HELLO, "httpd", "-f", "-p", "80", "-h", "/www")


class Saved:
    """The saved memory of a machine that is suspended."""

    def __init__(self, driver: Driver) -> None:
        self.file = driver.path / "home" / "machines" / driver.name / "suspend.zst"

    def unpacked(self) -> list[bytes]:
        chunks = []
        with zstd.open(self.file, "rb") as file:
            while data := file.read(CHUNK):
                chunks.append(data)
        return chunks

    def forget(self) -> None:
        """Out of the page cache, as after a while."""
        with self.file.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def packed(chunks: list[bytes], target: Path) -> None:
    """Compressed as wherry does, written and synced."""
    with target.open("wb") as raw:
        with zstd.open(raw, "wb", level=1) as file:
            for chunk in chunks:
                file.write(chunk)
        raw.flush()
        os.fsync(raw.fileno())
    target.unlink()


def measure(results: Results, rounds: int, _calls: int) -> None:
    taken: dict[str, list[Any]] = {name: [] for name in NAMES}
    with started(results) as driver:
        try:
            repeated(results, rounds, lambda: one_round(driver, taken), taken)
        finally:
            if results.rounds:
                report(results, taken)


def one_round(driver: Driver, taken: dict[str, list[Any]]) -> None:
    done(driver, "stop")
    taken["cold"].append(seconds(driver.up))
    driver.wherry("docker", "rm", "-f", "web")
    done(driver, "run", *CONTAINER)
    taken["suspend"].append(seconds(lambda: done(driver, "suspend")))
    saved = Saved(driver)
    chunks: list[bytes] = []
    taken["unpack"].append(seconds(lambda: chunks.extend(saved.unpacked())))
    taken["size"].append(saved.file.stat().st_size / 1e6)
    taken["plain"].append(sum(map(len, chunks)) / 1e6)
    taken["pack"].append(seconds(lambda: packed(chunks, driver.path / "packed")))
    taken["cached"].append(seconds(driver.up))
    taken["timeline"].append(timeline(driver, taken["cached"][-1]))
    if CAN_FORGET:
        done(driver, "suspend")
        Saved(driver).forget()
        taken["uncached"].append(seconds(driver.up))
    assert "web" in driver.docker("ps", "--format", "{{.Names}}")


def report(results: Results, taken: dict[str, list[Any]]) -> None:
    results.timelines("resume", taken["timeline"])
    row = Row("suspend, one container", "its memory compressed, written, synced", "s", taken["suspend"], taken["pack"])
    results.add(row.at_most(5, alone=True))
    results.add(Row("saved memory", "not compressed", "MB", taken["size"], taken["plain"]).at_most(200, alone=True))
    results.add(Row("resume", "cold start", "s", taken["cached"], taken["cold"]).at_most(1 / 6, "at least 6x as fast"))
    row = Row("resume, file in the page cache", "the file decompressed", "s", taken["cached"], taken["unpack"])
    results.add(row.at_most(1.8, alone=True))
    if CAN_FORGET:
        row = Row("resume, file not in the page cache", "the file decompressed", "s", taken["uncached"], taken["unpack"])
        results.add(row.at_most(3, alone=True))
