"""How what is waited for and what is held grow with the number of containers, of machines and of published ports."""

from __future__ import annotations

import statistics
from functools import partial
from typing import Final

from tests.bench.place import HELLO, MEMORY, done, keeper, qemu, started
from tests.bench.ports import free_ports, get
from tests.bench.rest import per_cent
from tests.bench.results import Results, Row, seconds
from tests.vm.client import Client

CONTAINERS: Final = (1, 10, 100)
MACHINES: Final = (1, 2, 4)
PORTS: Final = (1, 100, 500)
AT_A_TIME: Final = 25  # ports of one container
WINDOW: Final = 15.0  # seconds of idling
SLEEP: Final = ("sleep", "1000000")


def ends(results: Results, name: str, unit: str, points: list[tuple[int, list[float]]], of: str) -> Row:
    """The last point against the first one."""
    (first, one), (last, other) = points[0], points[-1]
    return results.add(Row(f"{name}, {last} {of}", f"{first}", unit, other, one))


def containers(results: Results, rounds: int, _calls: int) -> None:
    """Of each count: what the last `rounds` containers took, and a list of all of them."""
    starts, lists, memory, watcher = [], [], [], []
    with started(results) as driver:
        client, took = Client(driver), list[float]()
        client("run", "--rm", HELLO, "true")  # the first one of a machine is a figure of its own
        for count in CONTAINERS:
            while len(took) < count:
                took.append(seconds(lambda: client("run", "-d", HELLO, *SLEEP)))
            starts.append((count, took[-min(rounds, count) :]))
            lists.append((count, [seconds(lambda: client("ps", "-q")) * 1000 for _ in range(rounds)]))
            memory.append((count, [qemu(driver).memory_info().rss / 1e6]))
            watcher.append((count, [keeper(driver).memory_info().rss / 1e6]))
        assert len(client("ps", "-q").split()) == CONTAINERS[-1]
    results.curve("containers", "one more container", "s", starts)
    results.curve("containers", "docker ps", "ms", lists)
    results.curve("containers", "QEMU's memory", "MB", memory)
    results.curve("containers", "keeper's memory", "MB", watcher)
    ends(results, "one more container", "s", starts, "containers")
    ends(results, "docker ps", "ms", lists, "containers")
    ends(results, "keeper's memory", "MB", watcher, "containers")


def machines(results: Results, rounds: int, _calls: int) -> None:
    """Each is started beside those that run already; what they cost together while nobody uses them."""
    starts, memory, load = [], [], []
    with started(results) as driver:
        running = 1
        for count in MACHINES:
            while running < count:
                running += 1
                done(driver, "init", f"m{running}", "--memory", MEMORY)
                done(driver, "up", f"m{running}")
            name = driver.name if count == 1 else f"m{running}"
            took = []
            for _ in range(rounds):
                done(driver, "stop", name)
                took.append(seconds(partial(done, driver, "up", name)))
            starts.append((count, took))
            processes = [
                one for one in driver.processes() if one.name().startswith("qemu") or "launcher.keeper" in one.cmdline()
            ]
            memory.append((count, [sum(one.memory_info().rss for one in processes) / 1e6]))
            load.append((count, [sum(per_cent(processes, WINDOW))]))
    results.curve("machines", "cold start of one more", "s", starts)
    results.curve("machines", "memory of all", "MB", memory)
    results.curve("machines", "idle, all", "% of a CPU", load)
    ends(results, "cold start of one more", "s", starts, "machines")


def ports(results: Results, rounds: int, _calls: int) -> None:
    """What a container waits for each port that it publishes, more than one without; requests to the last port."""
    publishes, requests, watcher = [], [], []
    with started(results) as driver:
        client, open_ports = Client(driver), free_ports(PORTS[-1])
        client("run", "--rm", HELLO, "true")
        bare = statistics.median(timed(client, []) for _ in range(rounds))
        results.cost("a container without ports", seconds=round(bare, 2))
        there = 0
        for count in PORTS:
            took: list[float] = []
            while there < count:
                some = open_ports[there : min(there + AT_A_TIME, count)]
                again = rounds - 1 if count == 1 else 0
                for last in [False] * again + [True]:
                    took.append(max(0.0, timed(client, some, keep=last) - bare) * 1000 / len(some))
                there += len(some)
            publishes.append((count, took[-rounds:]))
            requests.append((count, [seconds(partial(get, open_ports[count - 1], "/")) * 1000 for _ in range(rounds * 4)]))
            watcher.append((count, [keeper(driver).memory_info().rss / 1e6]))
        assert all(get(port, "/") > 0 for port in open_ports)
    results.curve("ports", "one more port", "ms", publishes)
    results.curve("ports", "request to the last port", "ms", requests)
    results.curve("ports", "keeper's memory", "MB", watcher)
    results.add(Row(f"one more port, {PORTS[2]} ports", f"{PORTS[1]}", "ms", publishes[2][1], publishes[1][1]))
    ends(results, "request to the last port", "ms", requests, "ports")
    ends(results, "keeper's memory", "MB", watcher, "ports")


def timed(client: Client, some: list[int], *, keep: bool = False) -> float:
    """Seconds until a web server with these ports was there."""
    words = [word for port in some for word in ("-p", f"{port}:80")]
    name: list[str] = []
    took = seconds(lambda: name.append(client("run", "-d", *words, HELLO, "httpd", "-f", "-p", "80", "-h", "/www").strip()))
    if not keep:
        client("rm", "-f", *name)
    return took
