"""How what is waited for and what is held grow with the number of containers, of machines and of published ports."""

from __future__ import annotations

import statistics
from functools import partial
from typing import Final, Self

from tests.bench.place import HELLO, MEMORY, done, keeper, qemu, started
from tests.bench.ports import free_ports, get
from tests.bench.rest import SETTLED, per_cent
from tests.bench.results import Results, Row, seconds
from tests.vm.client import Client

CONTAINERS: Final = (1, 10, 100)
MACHINES: Final = (1, 2, 4)
PORTS: Final = (1, 100, 500)
AT_A_TIME: Final = 25  # ports of one container
WINDOW: Final = 15.0  # seconds of idling
SLEEP: Final = ("sleep", "1000000")


class Curves:
    """How things grow with the number of something; what was measured is told when it ends, also when that is early."""

    def __init__(self, results: Results, of: str) -> None:
        self._results, self._of = results, of
        self._points: dict[tuple[str, str, int], list[tuple[int, list[float]]]] = {}

    def __enter__(self) -> Self:
        return self

    def point(self, count: int, what: str, unit: str, values: list[float], *, since: int = 0) -> None:
        """`since`: which of its points the last one is compared with."""
        self._points.setdefault((what, unit, since), []).append((count, values))

    def __exit__(self, *_: object) -> None:
        for (what, unit, since), points in self._points.items():
            self._results.curve(self._of, what, unit, points)
            if len(points) > since + 1:
                (before, first), (count, last) = points[since], points[-1]
                self._results.add(Row(f"{what}, {count} {self._of}", f"with {before}", unit, last, first))


def containers(results: Results, rounds: int, _calls: int) -> None:
    """Of each count: what the last `rounds` containers took, and a list of all of them."""
    with started(results) as driver, Curves(results, "containers") as curves:
        client, took = Client(driver), list[float]()
        client("run", "--rm", HELLO, "true")  # the first one of a machine is a figure of its own
        for count in CONTAINERS:
            while len(took) < count:
                took.append(seconds(lambda: client("run", "-d", HELLO, *SLEEP)))
            curves.point(count, "one more container", "s", took[-min(rounds, count) :])
            curves.point(count, "docker ps", "ms", [seconds(lambda: client("ps", "-q")) * 1000 for _ in range(rounds)])
            curves.point(count, "QEMU's memory", "MB", [qemu(driver).memory_info().rss / 1e6])
            curves.point(count, "keeper's memory", "MB", [keeper(driver).memory_info().rss / 1e6])
        assert len(client("ps", "-q").split()) == CONTAINERS[-1]


def machines(results: Results, rounds: int, _calls: int) -> None:
    """Each is started beside those that run already; what they cost together while nobody uses them."""
    with started(results) as driver, Curves(results, "machines") as curves:
        running = 1
        for count in MACHINES:
            while running < count:
                running += 1
                done(driver, "init", f"m{running}", "--memory", MEMORY)
                if results.accel != "auto":
                    done(driver, "config", "set", f"accel={results.accel}", machine=f"m{running}")
                done(driver, "up", f"m{running}")
            name, took = driver.name if count == 1 else f"m{running}", []
            for _ in range(rounds):
                done(driver, "stop", name)
                took.append(seconds(partial(done, driver, "up", name)))
            curves.point(count, "cold start of one more", "s", took)
            processes = [
                process
                for process in driver.processes()
                if process.name().startswith("qemu-system") or "launcher.keeper" in process.cmdline()
            ]
            curves.point(count, "memory of all", "MB", [sum(process.memory_info().rss for process in processes) / 1e6])
            per_cent(processes, SETTLED)
            curves.point(count, "idle, all", "% of a CPU", [sum(per_cent(processes, WINDOW))])


def ports(results: Results, rounds: int, _calls: int) -> None:
    """What a container waits for each port that it publishes, more than one without; requests to the last port."""
    with started(results) as driver, Curves(results, "ports") as curves:
        client, open_ports = Client(driver), free_ports(PORTS[-1])
        client("run", "--rm", HELLO, "true")
        bare = statistics.median(timed(client, []) for _ in range(rounds))
        results.cost("a container without ports", seconds=round(bare, 2))
        there = 0
        for count in PORTS:
            took: list[float] = []
            while there < count:
                some = open_ports[there : min(there + AT_A_TIME, count)]
                for last in [False] * (rounds - 1 if count == 1 else 0) + [True]:
                    took.append(max(0.0, timed(client, some, keep=last) - bare) * 1000 / len(some))
                there += len(some)
            # What a single port takes is lost in what a container takes.
            curves.point(count, "one more port", "ms", took[-rounds:], since=1)
            asked = [seconds(partial(get, open_ports[count - 1], "/")) * 1000 for _ in range(rounds * 4)]
            curves.point(count, "request to the last port", "ms", asked)
            curves.point(count, "keeper's memory", "MB", [keeper(driver).memory_info().rss / 1e6])
        assert all(get(port, "/") > 0 for port in open_ports)


def timed(client: Client, some: list[int], *, keep: bool = False) -> float:
    """Seconds until a web server with these ports was there."""
    words = [word for port in some for word in ("-p", f"{port}:80")]
    name: list[str] = []
    took = seconds(lambda: name.append(client("run", "-d", *words, HELLO, "httpd", "-f", "-p", "80", "-h", "/www").strip()))
    if not keep:
        client("rm", "-f", *name)
    return took
