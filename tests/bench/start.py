"""Start and command times. Boots one machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from tests.bench.results import Results, Row, seconds
from tests.vm.driver import WHERRY, Driver


def measure(results: Results, rounds: int, _calls: int) -> None:
    driver = Driver()

    def time(name: str, count: int, call: Callable[[], object]) -> None:
        results.add(Row(name, "", "ms", [seconds(call) * 1000 for _ in range(count)]))

    try:
        time("python -c pass", rounds, lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
        time("wherry --version", rounds, lambda: subprocess.run([WHERRY, "--version"], check=True, capture_output=True))
        time("wherry up, first", 1, driver.up)
        time("wherry up, running", rounds, driver.up)
        for words in ("status", "ssh true", "docker ps", "run wherry/hello true"):
            time(f"wherry {words}", rounds, lambda words=words: driver.wherry(*words.split()))  # type: ignore[misc]
        time("wherry stop", 1, lambda: driver.wherry("stop"))
        time("wherry up, again", 1, driver.up)
        results.stages = [(name, at) for name, at in driver.status()["timeline"]]
        results.cost("stages", **{name: round(at, 1) for name, at in results.stages})
    finally:
        driver.close()
