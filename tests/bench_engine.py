"""The engine's socket against OpenSSH's forwarding of it, on one machine: python -m tests.bench_engine [ROUNDS [CALLS]]."""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.vm.client import Client
from tests.vm.driver import Driver

HELLO = "wherry.internal/hello"
CLOSE = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"


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
    assert total > 200_000_000, total
    made.close()


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def compare(name: str, rounds: int, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """In turns, so that both meet the same weather."""
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{name:<34}{first * 1000:>10.1f}{second * 1000:>10.1f}{first / second:>8.2f}", flush=True)


def forwarding(driver: Driver, path: Path) -> subprocess.Popen[bytes]:
    """ssh -L of the engine's socket over a connection that is open already."""
    machine = driver.path / "home" / "machines" / "default"
    options = [
        "StrictHostKeyChecking=no",
        f"UserKnownHostsFile={os.devnull}",
        "LogLevel=ERROR",
        "Ciphers=aes128-gcm@openssh.com",
    ]
    words = [word for option in options for word in ("-o", option)]
    port = str(driver.status()["ssh_port"])
    argv = [
        "ssh",
        "-N",
        "-i",
        str(machine / "id_ed25519"),
        "-p",
        port,
        *words,
        "-L",
        f"{path}:/run/docker.sock",
        "root@127.0.0.1",
    ]
    child = subprocess.Popen(argv)
    driver.wait_until(path.exists, "ssh listens")
    return child


def image(client: Client) -> str:
    """An image of 200 MB that does not compress."""
    folder = client.machine.path / "image"
    folder.mkdir()
    with (folder / "data").open("wb") as file:
        for _ in range(200):
            file.write(secrets.token_bytes(1 << 20))
    (folder / "Dockerfile").write_text(f"FROM {HELLO}\nCOPY data /data\n")
    took = seconds(lambda: client("build", "-q", "-t", "large", str(folder), timeout=1800))
    print(f"build with 200 MB of context      {took:>9.1f} s")
    return "large"


def costs(process: psutil.Process) -> dict[str, Any]:
    memory = process.memory_info().rss / 1e6
    return {"memory MB": round(memory, 1), "descriptors": process.num_fds(), "threads": process.num_threads()}


def main(rounds: int, calls: int) -> None:
    driver = Driver()
    other = driver.path / "other.sock"
    try:
        driver.up()
        client = Client(driver)
        [keeper] = [found for found in driver.processes() if "launcher.keeper" in found.cmdline()]
        print("keeper at rest", costs(keeper))
        ssh = forwarding(driver, other)
        ours, theirs = kept_open(client.socket), kept_open(other)
        print(f"{'ms, median':<34}{'wherry':>10}{'ssh -L':>10}{'ratio':>8}")
        for warm in (ours, theirs, lambda: new_connection(client.socket), lambda: new_connection(other)):
            warm()
        compare("ping, connection kept", rounds * 20, ours, theirs)
        compare("ping, connection of its own", rounds * 5, lambda: new_connection(client.socket), lambda: new_connection(other))
        compare("200 connections at once", rounds, lambda: at_once(client.socket), lambda: at_once(other))
        version = {"DOCKER_HOST": f"unix://{client.socket}"}, {"DOCKER_HOST": f"unix://{other}"}
        compare("docker version", rounds, lambda: client("version", env=version[0]), lambda: client("version", env=version[1]))
        name = image(client)
        compare("save of 200 MB", rounds, lambda: save(client.socket, name), lambda: save(other, name))
        print("keeper after it", costs(keeper))
        took = seconds(lambda: [new_connection(client.socket) for _ in range(calls)])
        time.sleep(1)
        print(f"keeper after {calls} calls in {took:.0f} s", costs(keeper))
        ssh.terminate()
        ssh.wait()
    finally:
        driver.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, int(sys.argv[2]) if len(sys.argv) > 2 else 5000)
