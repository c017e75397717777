"""The machine that a part measures, in a home of its own, and what this computer is."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psutil

from launcher import __version__
from tests.bench.results import Results
from tests.vm.driver import START_SECONDS, Driver

MEMORY: Final = "2G"
HELLO: Final = "wherry.internal/hello"


@contextmanager
def started(results: Results, *words: str) -> Iterator[Driver]:
    """With 2 GB and these options of `init`. Its first start, which makes the disk and is waited for once only, is over."""
    driver = Driver()
    try:
        up(results, driver, "--memory", MEMORY, *words)
        yield driver
    finally:
        driver.close()


def up(results: Results, driver: Driver, *words: str) -> None:
    done(driver, "init", *words)
    done(driver, "config", "set", "idle_suspend=0")  # what is measured at rest is to run
    if results.accel != "auto":
        done(driver, "config", "set", f"accel={results.accel}")
    driver.up()
    results.machine = described(driver)


def described(driver: Driver) -> dict[str, Any]:
    """Of a machine that runs."""
    words = qemu(driver).cmdline()
    told = subprocess.run([words[0], "--version"], check=True, capture_output=True, text=True).stdout
    version = re.search(r"version (\S+)", told)
    return {
        "system": platform.system() + " " + platform.release(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "qemu": version[1] if version else "",
        "accelerator": words[words.index("-accel") + 1].split(",")[0],
        "guest": f"{words[words.index('-smp') + 1]} CPUs, {words[words.index('-m') + 1]} MB",
        "wherry": __version__,
        "python": sys.version.split()[0],
    }


def processor() -> str:
    """Its model, as far as the system tells it; else its kind."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def qemu(driver: Driver) -> psutil.Process:
    [found] = [process for process in driver.processes() if process.name().startswith("qemu-system")]
    return found


def keeper(driver: Driver) -> psutil.Process:
    [found] = [process for process in driver.processes() if "launcher.keeper" in process.cmdline()]
    return found


def used(process: psutil.Process) -> float:
    """Seconds of processor time until now."""
    times = process.cpu_times()
    return float(times.user + times.system)


def timeline(driver: Driver, took: float) -> list[tuple[str, float]]:
    """The stages of the last start, and how long it took in all: what the command itself adds before and behind them."""
    return [*((str(name), float(at)) for name, at in driver.status()["timeline"]), ("returned", took)]


def alone(driver: Driver, began: float, returned: float) -> float:
    """Seconds of the last start that lay before its QEMU and after the guest's last word, between these times of day."""
    log = driver.wherry("logs", "keeper").stdout.decode()
    at = {word: re.findall(rf"^(\S+ \S+) INFO wherry\.keeper: {what}", log, re.MULTILINE)[-1]
          for word, what in (("qemu", r"\+ \S*qemu"), ("ready", "guest: stage ready"))}  # fmt: skip
    moments = {word: datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp() for word, text in at.items()}
    return moments["qemu"] - began + returned - moments["ready"]


def done(driver: Driver, *words: str, machine: str = "") -> str:
    """What the command said; it must have succeeded."""
    result = driver.wherry(*words, timeout=START_SECONDS, env={"WHERRY_MACHINE": machine} if machine else None)
    assert result.returncode == 0, (words, result.stdout.decode(), result.stderr.decode())
    return result.stdout.decode()
