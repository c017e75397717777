"""Start and command times as a table: python -m tests.bench [ROUNDS]. Boots one machine in a home of its own."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from tests.vm.driver import WHERRY, Driver


def measure(name: str, rounds: int, call: Callable[[], object]) -> None:
    """One line: the median and the worst of so many rounds, in milliseconds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    print(f"{name:<34}{statistics.median(times):>10.0f}{max(times):>10.0f}", flush=True)


def main(rounds: int) -> None:
    driver = Driver()
    print(f"{'ms':<34}{'median':>10}{'worst':>10}")
    try:
        measure("python -c pass", rounds, lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
        measure("wherry --version", rounds, lambda: subprocess.run([WHERRY, "--version"], check=True, capture_output=True))
        measure("wherry up, first", 1, driver.up)
        measure("wherry up, running", rounds, driver.up)
        for words in ("status", "ssh true", "docker ps", "run wherry/hello true"):
            measure(f"wherry {words}", rounds, lambda words=words: driver.wherry(*words.split()))  # type: ignore[misc]
        measure("wherry stop", 1, lambda: driver.wherry("stop"))
        measure("wherry up, again", 1, driver.up)
        for name, at in driver.status()["timeline"]:
            print(f"  {name:<32}{at * 1000:>10.0f}")
    finally:
        driver.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
