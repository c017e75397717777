"""The engine's socket and the docker commands, against OpenSSH's forwarding of the socket and its master connection."""

from __future__ import annotations

import http.client
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from tests.bench.openssh import Master
from tests.bench.place import up
from tests.bench.results import Results, Row, in_turn, seconds
from tests.vm.client import Client
from tests.vm.driver import Driver

HELLO = "wherry.internal/hello"
CLOSE = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
MEGABYTES = 200


def connect(path: Path) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(str(path))
    return stream


def new_connection(path: Path) -> None:
    """GET /_ping as each command of a client does it."""
    with connect(path) as stream:
        stream.sendall(CLOSE)
        while stream.recv(4096):
            pass


def at_once(path: Path, count: int = 200) -> None:
    streams = [connect(path) for _ in range(count)]
    for stream in streams:
        stream.sendall(CLOSE)
    for stream in streams:
        got = stream.recv(4096)
        assert got.startswith(b"HTTP/1.1 200"), got
        stream.close()


def kept_open(path: Path) -> Callable[[], None]:
    made = http.client.HTTPConnection("d")
    made.sock = connect(path)

    def ping() -> None:
        made.request("GET", "/_ping")
        with made.getresponse() as answer:
            answer.read()

    return ping


def save(path: Path, image: str) -> None:
    made = http.client.HTTPConnection("d")
    made.sock = connect(path)
    made.request("GET", f"/images/{image}/get")
    answer, total = made.getresponse(), 0
    while data := answer.read(1 << 20):
        total += len(data)
    assert total > MEGABYTES * 1_000_000, total
    made.close()


def image(client: Client) -> str:
    """An image of 200 MB that does not compress."""
    folder = client.machine.path / "image"
    folder.mkdir()
    with (folder / "data").open("wb") as file:
        for _ in range(MEGABYTES):
            file.write(secrets.token_bytes(1 << 20))
    (folder / "Dockerfile").write_text(f"FROM {HELLO}\nCOPY data /data\n")
    client("build", "-q", "-t", "large", str(folder), timeout=1800)
    return "large"


def costs(driver: Driver) -> dict[str, Any]:
    [keeper] = [found for found in driver.processes() if "launcher.keeper" in found.cmdline()]
    memory = round(keeper.memory_info().rss / 1e6, 1)
    return {"memory_mb": memory, "descriptors": keeper.num_fds(), "threads": keeper.num_threads()}


def cpu_percent(process: psutil.Process, wait: float) -> float:
    """Of one core, over so many seconds of doing nothing."""
    before = process.cpu_times()
    time.sleep(wait)
    after = process.cpu_times()
    return round((after.user + after.system - before.user - before.system) / wait * 100, 3)


def pings(results: Results, rounds: int, ours: Path, theirs: Path) -> None:
    kept = kept_open(ours), kept_open(theirs)
    for warm in (*kept, lambda: new_connection(ours), lambda: new_connection(theirs)):
        warm()
    compare(results, "GET /_ping, connection kept", rounds * 20, *kept, at_most=1.2)
    compare(results, "GET /_ping, new connection", rounds * 5, lambda: new_connection(ours), lambda: new_connection(theirs))
    compare(results, "200 API connections at once", rounds, lambda: at_once(ours), lambda: at_once(theirs))


def compare(
    results: Results,
    name: str,
    rounds: int,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    against: str = "ssh -L",
    at_most: float | None = None,
) -> None:
    first, second = ([value * 1000 for value in values] for values in in_turn(rounds, ours, theirs))
    row = Row(name, against, "ms", first, second)
    results.add(row if at_most is None else row.at_most(at_most))


def versions(results: Results, rounds: int, client: Client, other: Path, master: Master) -> None:
    """`docker version`: by the client here, and by the one in the machine."""
    driver = client.machine
    path = f"{client.program.parent}:{driver.environment['PATH']}"

    def host_client() -> None:
        done = driver.wherry("docker", "version", env={"PATH": path, "WHERRY_CLIENT": "host"})
        assert done.returncode == 0, done.stderr

    def guest_client() -> None:
        done = driver.wherry("docker", "version", env={"WHERRY_CLIENT": "guest"})
        assert done.returncode == 0, done.stderr

    def forwarded() -> None:
        client("version", env={"DOCKER_HOST": f"unix://{other}"})

    for warm in (host_client, guest_client, forwarded):
        warm()
    ours, theirs = ([value * 1000 for value in values] for values in in_turn(rounds * 2, host_client, forwarded))
    row = Row("wherry docker version, client here", "docker on ssh -L", "ms", ours, theirs)
    more = sorted(ours)[len(ours) // 2] - sorted(theirs)[len(theirs) // 2]
    results.add(replace(row, goal=f"at most 60 ms more: {more:.0f}", met=more <= 60, used=max(more, 0) / 60))
    compare(
        results, "wherry docker version, guest's client", rounds, guest_client, lambda: master.run("docker", "version"),
        against="ssh, ControlMaster", at_most=1.15,
    )  # fmt: skip


def saves(results: Results, rounds: int, client: Client, other: Path) -> None:
    name = image(client)
    ours, theirs = in_turn(rounds, lambda: save(client.socket, name), lambda: save(other, name))
    speeds = [MEGABYTES / value for value in ours], [MEGABYTES / value for value in theirs]
    results.add(Row("docker save of 200 MB", "ssh -L", "MB/s", *speeds).at_least(0.9))


def measure(results: Results, rounds: int, calls: int) -> None:
    """Boots one machine in a home of its own."""
    driver = Driver()
    other = driver.path / "other.sock"
    try:
        up(results, driver)
        client = Client(driver)
        [keeper] = [found for found in driver.processes() if "launcher.keeper" in found.cmdline()]
        results.cost("keeper at rest", **costs(driver), cpu_percent=cpu_percent(keeper, 60))
        with Master(driver) as master:
            master.forward(other, "/run/docker.sock")
            pings(results, rounds, client.socket, other)
            versions(results, rounds, client, other, master)
            saves(results, rounds, client, other)
        results.cost("keeper after it", **costs(driver))

        def many() -> None:
            for _ in range(calls):
                new_connection(client.socket)

        took = seconds(many)
        results.cost(f"keeper after {calls} calls", seconds=round(took), **costs(driver))
    finally:
        driver.close()
