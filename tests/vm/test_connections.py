"""Many connections to the engine's socket, and much through one: nothing of it stays, in the keeper or in the machine."""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import socket
import subprocess
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.vm.client import Client
from tests.vm.driver import SOAK, Driver

pytestmark = pytest.mark.vm
AT_ONCE = 200
IN_TURN = 5000 if SOAK else 300
MEGABYTES = 2048 if SOAK else 64
GROWTH = 4_000_000  # of memory that is no leak: 5,000 connections that left 1 KB each would show
PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"
LAST_PING = PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
EVENTS = b"GET /events HTTP/1.1\r\nHost: docker\r\n\r\n"


class Kept(NamedTuple):
    """What the keeper holds."""

    descriptors: int
    threads: int
    memory: int


@pytest.fixture(scope="module")
def client(machine: Driver) -> Client:
    return Client(machine)


def keeper(client: Client) -> psutil.Process:
    [found] = [process for process in client.machine.processes() if "launcher.keeper" in process.cmdline()]
    return found


def kept(process: psutil.Process) -> Kept:
    """When nothing changes any more: a connection ends a moment after its client."""
    seen = (-1, -1)
    while seen != (now := (process.num_fds(), process.num_threads())):
        seen = now
        time.sleep(0.5)
    return Kept(*now, process.memory_info().rss)


def in_guest(client: Client) -> Counter[str]:
    """How many processes of each command line there are, without the kernel's and this look's."""
    lines = [line.strip() for line in client.machine.ssh("ps -o args").splitlines()]
    return Counter(line for line in lines if not line.startswith(("[", "ps ", "{ps}", "/usr/lib/wherry/exec")))


@contextmanager
def nothing_stays(client: Client) -> Iterator[None]:
    """Fails when more is there afterwards than before, in the keeper or in the machine."""
    process, guest = keeper(client), in_guest(client)
    before = kept(process)
    yield
    client.machine.wait_until(
        lambda: process.num_fds() <= before.descriptors and process.num_threads() <= before.threads,
        f"the keeper holds no more than before: {before}",
    )
    after = kept(process)
    print(f"keeper before and after: {before} {after}")
    assert after.memory - before.memory < GROWTH
    # The engine starts programs of its own, which take their time to end.
    client.machine.wait_until(lambda: not in_guest(client) - guest, "no process is left in the machine")


def connect(client: Client) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(300)
    stream.connect(str(client.socket))
    return stream


def everything(stream: socket.socket) -> bytes:
    return b"".join(iter(lambda: stream.recv(65536), b""))


def many(client: Client) -> float:
    """Connections that are all open at the same time: half of them are silent afterwards, half follow the events; some clients
    say goodbye, some vanish."""
    began = time.monotonic()
    streams = [connect(client) for _ in range(AT_ONCE)]
    for number, stream in enumerate(streams):
        stream.sendall(EVENTS if number % 2 else PING)
    for number, stream in enumerate(streams):
        if number % 2 == 0:
            assert stream.recv(4096).startswith(b"HTTP/1.1 200")
    took = time.monotonic() - began
    for number, stream in enumerate(streams):
        if number % 4 < 2:
            stream.shutdown(socket.SHUT_WR)
        stream.close()
    return took


def test_many_at_once(client: Client) -> None:
    many(client)  # what is made once, and memory that is used again
    with nothing_stays(client):
        print(f"{AT_ONCE} connections at once: {many(client):.1f} s")


def one(client: Client, number: int) -> None:
    """A short connection: a call, one that is left before the answer, one with several requests."""
    with connect(client) as stream:
        kind = number % 4
        if kind == 3:
            stream.sendall(b"GET /containers/json HTTP/1.1\r\nHost: docker\r\n\r\n")
            return
        stream.sendall((PING * kind) + LAST_PING)
        assert everything(stream).count(b"HTTP/1.1 200") == kind + 1


def test_many_in_turn(client: Client) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: one(client, number), range(60)))
    with nothing_stays(client):
        began = time.monotonic()
        for number in range(IN_TURN):
            one(client, number)
        print(f"{IN_TURN} connections in turn: {(time.monotonic() - began) / IN_TURN * 1000:.1f} ms each")


def archive(target: Path, megabytes: int) -> str:
    """An image with one large file; the SHA-256 of its only layer."""
    layer = target.with_name("layer.tar")
    with tarfile.TarFile(layer, "w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo("large")
        member.size = megabytes << 20
        tar.addfile(member, _Noise())  # type: ignore[arg-type]
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}
    )
    manifest = json.dumps([{"Config": "config.json", "Layers": ["layer.tar"], "RepoTags": ["wherry.test/large:latest"]}])
    with tarfile.TarFile(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, text in (("config.json", config), ("manifest.json", manifest)):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
        tar.add(layer, "layer.tar")
    layer.unlink()
    return digest


class _Noise:
    """A file without an end, no two MiB of it alike."""

    def __init__(self) -> None:
        self._block, self._at = secrets.token_bytes(1 << 20), 0

    def read(self, size: int) -> bytes:
        self._at += 1
        return (self._at.to_bytes(8, "big") + self._block)[:size]


@contextmanager
def watched(process: psutil.Process) -> Iterator[list[int]]:
    """The most memory that the process had while this goes on, added to the list at its end."""
    stop, most, found = threading.Event(), [process.memory_info().rss], list[int]()

    def look() -> None:
        while not stop.wait(0.05):
            most[0] = max(most[0], process.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        found.append(most[0])


def test_memory_is_flat_for_load_and_save(client: Client, tmp_path: Path) -> None:
    process, size = keeper(client), MEGABYTES << 20
    image = tmp_path / "image.tar"
    digest = archive(image, MEGABYTES)
    before = process.memory_info().rss
    with watched(process) as most:
        began = time.monotonic()
        client("load", "-i", str(image), timeout=1800)
        loaded = time.monotonic()
        image.unlink()
        with client.popen("save", "wherry.test/large", stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            layers = _layers(child.stdout)
            assert child.wait(60) == 0
        saved = time.monotonic()
    client("image", "rm", "wherry.test/large")
    print(
        f"load {size / (loaded - began) / 1e6:.0f} MB/s, save {size / (saved - loaded) / 1e6:.0f} MB/s; keeper {before} {most}"
    )
    assert digest in layers
    # Two windows, one of each direction, and what Python's allocator takes around them.
    assert most[0] - before < 16_000_000


def _layers(stream: io.BufferedReader) -> set[str]:
    """SHA-256 of all files in a tar that comes as a stream."""
    found = set()
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            if (file := tar.extractfile(member)) is not None:
                found.add(hashlib.file_digest(file, "sha256").hexdigest())  # type: ignore[arg-type]
    return found
