"""A cold start with its stages, against its floor; the first container, what keeper and command take of it, and a stop.

The floor is QEMU with a guest that does nothing (floor.py), and the engine's own start, measured in the running guest.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.bench.floor import Floor
from tests.bench.place import alone, done, keeper, qemu, started, timeline, used
from tests.bench.results import Results, Row, repeated, seconds
from tests.vm.driver import Driver

# The engine by hand, and nothing of ours beside it: `stopping` is what keeps init's services from being started again. Nobody
# polls, since that would take from the one processor that an emulated guest may have. Then all is as it was.
ENGINE: Final = r"""
now() { read -r up _ </proc/uptime; echo "$up"; }
end() { kill -TERM "$1"; while kill -0 "$1" 2>/dev/null; do sleep 0.05; done; }
mkdir /run/wherry/stopping
read -r follower </run/wherry/service/engine.pid
read -r engine </run/wherry/service/dockerd.pid
end "$follower"
told=$(now)
end "$engine"
ended=$(now)
rm -f /run/docker.sock /run/docker.pid
ulimit -n 1048576
began=$(now)
/usr/sbin/dockerd --config-file /run/wherry/engine/daemon.json --host unix:///var/run/docker.sock \
    --containerd /run/containerd/containerd.sock >/dev/null 2>&1 &
/usr/lib/wherry/await /run/docker.sock
/usr/lib/wherry/engine ensure-hello
answered=$(now)
end $!
rm -f /run/docker.sock
rmdir /run/wherry/stopping
killall sleep
/usr/lib/wherry/await /run/docker.sock
/usr/lib/wherry/engine ensure-hello
echo "$told $ended $began $answered"
"""
FLOOR: Final = "QEMU with an empty guest, then dockerd's own start"


NAMES: Final = ("stop", "cold", "alone", "cpu", "python", "timeline", "first", "second", "empty", "engine", "end")


def engine_again(driver: Driver) -> tuple[float, float]:
    """Seconds that dockerd takes to end, and to start until it answers."""
    told, ended, began, answered = map(float, driver.ssh(ENGINE, timeout=300).split())
    return ended - told, answered - began


def processor_time(words: list[str], driver: Driver | None = None) -> float:
    """Seconds of the command and of what it waited for; not of a keeper, which outlives it."""
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=driver.environment if driver else None, cwd=driver.path if driver else None,
    )  # fmt: skip
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said.decode()
    return usage.ru_utime + usage.ru_stime


def one_round(driver: Driver, floor: Floor | None, taken: dict[str, list[Any]]) -> None:
    taken["stop"].append(seconds(lambda: done(driver, "stop")))
    spoke, off = floor.start() if floor else (0.0, 0.0)
    taken["python"].append(2 * processor_time([sys.executable, "-c", "pass"]))
    command: list[float] = []
    began = time.time()
    taken["cold"].append(seconds(lambda: command.append(processor_time([str(driver.program), "up"], driver))))
    taken["alone"].append(alone(driver, began, time.time()))
    taken["cpu"].append(command[0] + used(keeper(driver)))
    taken["timeline"].append(timeline(driver, taken["cold"][-1]))
    for name in ("first", "second"):
        taken[name].append(seconds(lambda: done(driver, "run", "wherry/hello", "true")))
    ended, again = engine_again(driver)
    taken["empty"].append(spoke + off)
    taken["engine"].append(again)
    taken["end"].append(ended + off)


def measure(results: Results, rounds: int, _calls: int) -> None:
    taken: dict[str, list[Any]] = {name: [] for name in NAMES}
    with started(results) as driver:
        floor = Floor.of(driver)
        results.add(Row("ISO", "", "MB", [iso(driver).stat().st_size / 1e6]))
        try:
            repeated(results, rounds, lambda: one_round(driver, floor, taken), taken)
        finally:
            if results.rounds:
                report(results, taken, whole=floor is not None)


def iso(driver: Driver) -> Path:
    """That of the machine."""
    words = (re.match(r"driver=file,node-name=iso,filename=(.+),read-only=on", word) for word in qemu(driver).cmdline())
    [found] = filter(None, words)
    return Path(found[1].replace(",,", ","))


def report(results: Results, taken: dict[str, list[Any]], *, whole: bool) -> None:
    """`whole`: with QEMU's part of the floor."""
    both = list(zip(taken["empty"], taken["engine"], strict=True))
    results.timelines("cold", taken["timeline"])
    if whole:
        results.timelines("floor", [[("empty", empty), ("engine", empty + engine)] for empty, engine in both])
    row = Row("cold start", FLOOR if whole else "dockerd's own start", "s", taken["cold"], [sum(pair) for pair in both])
    results.add(row.at_most(1.25) if whole else row)
    results.add(Row("cold start, seconds", "", "s", taken["cold"]).at_most(12))
    results.add(Row("what keeper and command add to it", "", "s", taken["alone"]).at_most(0.4))
    row = Row(
        "keeper and command, all that they compute", "two empty Python processes", "s of CPU", taken["cpu"], taken["python"]
    )
    results.add(row)
    results.add(Row("first container", "the second one", "s", taken["first"], taken["second"]))
    against = "dockerd's own end" + (", and power off" if whole else "")
    results.add(Row("stop, no container", against, "s", taken["stop"], taken["end"]).at_most(4, alone=True))
