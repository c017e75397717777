"""Work on a share, against OpenSSH's sftp-server behind sshfs with its default options, and against the guest's own disk.

All three are in one container. sshfs runs there too, and has its stdio on a channel of an SSH connection of OpenSSH's, at whose
other end is sftp-server: the way of the bytes is as with ours.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.bench.engine import kept_open
from tests.bench.openssh import Master
from tests.bench.place import up
from tests.bench.ports import free_ports, get
from tests.bench.results import Results, Row, seconds
from tests.images.build import build
from tests.shares import work
from tests.vm.client import Client
from tests.vm.driver import Driver
from tests.vm.workshop import TOOLS, Container, load, shared_folder

SERVER = Path("/usr/lib/openssh/sftp-server")
PINGS = 200
MEMORY = 150  # MB
SATURATED = (
    "while :; do dd if=/share/big/big of=/dev/null bs=1M iflag=direct; "
    "dd if=/dev/zero of=/share/flood bs=1M count=64 conv=fsync; done 2>/dev/null"
)


class Sshfs:
    """A folder of this computer at /base of the container, by sftp-server and sshfs."""

    def __init__(self, master: Master, container: Container, pid: str, folder: Path) -> None:
        self._master, self._container, self._pid, self._folder = master, container, pid, folder
        self._both: list[subprocess.Popen[bytes]] = []

    def mount(self) -> None:
        """Anew, with nothing in its caches."""
        self.unmount()
        here, there = socket.socketpair()
        command = ["nsenter", "-t", self._pid, "-m", "--", "/usr/bin/sshfs", "-f", "-o", "passive,allow_other"]
        with here, there:
            self._both = [
                subprocess.Popen([str(SERVER), "-e"], stdin=here, stdout=here, stderr=subprocess.DEVNULL),
                self._master.popen(*command, f":{self._folder}", "/base", stdin=there, stdout=there),
            ]
        self._container.sh("until grep -q ' /base ' /proc/mounts; do sleep 0.1; done", timeout=60)

    def unmount(self) -> None:
        self._container.run("umount", "-l", "/base")
        for process in self._both:
            process.kill()
            process.wait()
        self._both = []


class Places:
    """/share, /base and /disk in the container, with the same in them."""

    def __init__(self, container: Container, sshfs: Sshfs) -> None:
        self.container, self.sshfs = container, sshfs

    def time(self, name: str, place: str) -> float:
        return float(self.container("python3", "/tools/work.py", "time", name, place, timeout=3600))

    def compare(self, rounds: int, name: str, kind: str) -> tuple[list[float], list[float], list[float]]:
        """Seconds on the share, over sshfs and on the disk; in turns, and by turns in another order."""
        took: dict[str, list[float]] = {"share": [], "base": [], "disk": []}
        cold = work.WORKS[name][1]
        for number in range(rounds):
            order = list(took) if number % 2 == 0 else list(took)[::-1]
            for place in order:
                if place == "base" and cold:
                    self.sshfs.mount()
                if not cold and name != "unpack":
                    self.time(name, f"/{place}/{kind}")  # so that the one that counts is the second
                took[place].append(self.time(name, f"/{place}/{kind}"))
        return took["share"], took["base"], took["disk"]


def rows(results: Results, places: Places, rounds: int, name: str, kind: str, *, least: float = 0, most: float = 0) -> None:
    """`least`: how many times as fast as sshfs it has to be; `most`: how many times the disk's seconds it may take."""
    ours, theirs, disk = places.compare(rounds, name, kind)
    count = work.COUNTS.get("npm" if name == "unpack" else kind)
    label = f"{name}, {count:,} files" if count else f"{name}, {work.MEGABYTES} MB"
    factor = statistics.median(theirs) / statistics.median(ours)
    row = Row(label, "sshfs", "s", ours, theirs)
    results.add(row.at_most(1 / least, f"at least {least:g}x as fast: {factor:.2f}x") if least else row)
    row = Row(label, "guest's disk", "s", ours, disk)
    results.add(row.at_most(most) if most else row)


def p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def under_load(results: Results, client: Client, places: Places, port: int) -> None:
    """The engine and a published port while the share is saturated, against the same while nothing is done."""
    ping = kept_open(client.socket)
    calls: dict[str, Callable[[], object]] = {"GET /_ping": ping, "published port": lambda: get(port, "/small")}
    idle = {name: [seconds(call) * 1000 for _ in range(PINGS)] for name, call in calls.items()}
    flood = places.container.popen("sh", "-c", SATURATED)
    try:
        places.container.sh("until [ -e /share/flood ]; do sleep 0.1; done", timeout=300)
        for name, call in calls.items():
            busy = [seconds(call) * 1000 for _ in range(PINGS)]
            factor = p95(busy) / p95(idle[name])
            row = Row(f"{name}, share saturated", "idle", "ms", [p95(busy)], [p95(idle[name])])
            results.add(row.at_most(3, f"p95 at most 3 times: {factor:.1f}"))
    finally:
        flood.kill()
        flood.wait()
        places.container.run("sh", "-c", "kill $(ps -o pid,args | awk '/while :/ && !/awk/ { print $1 }'); rm -f /share/flood")


class Memory(threading.Thread):
    """The most that the keeper and what it started for the shares took, in MB."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(daemon=True)
        self._processes = [found for found in driver.processes() if any("launcher.keeper" in word for word in found.cmdline())]
        self._over = threading.Event()
        self.most, self.each = 0.0, dict[str, float]()

    def run(self) -> None:
        while not self._over.wait(0.1):
            sizes = {
                process.cmdline()[-1][-30:] + f" {process.pid}": process.memory_info().rss / 1e6 for process in self._processes
            }
            if sum(sizes.values()) > self.most:
                self.most, self.each = sum(sizes.values()), sizes

    def stop(self) -> None:
        self._over.set()
        self.join()


def walked(results: Results, driver: Driver, places: Places) -> None:
    memory = Memory(driver)
    memory.start()
    took = places.time("du", "/share/huge")
    memory.stop()
    sizes = {name: round(value, 1) for name, value in memory.each.items()}
    results.cost(
        f"walk of {work.COUNTS['huge']:,} files", seconds=round(took), memory_mb=round(memory.most, 1), processes=sizes
    )
    results.add(Row("keeper's memory, 100,000 files walked", "", "MB", [memory.most]).at_most(MEMORY))


def fill(folder: Path) -> None:
    for kind in ("big", "small", "many", "repo"):
        work.make(kind, folder / kind)


def measure(results: Results, rounds: int, _calls: int) -> None:
    """Boots one machine in a home of its own."""
    driver = Driver()
    with ExitStack() as stack:
        stack.callback(driver.close)
        up(results, driver)
        client = Client(driver)
        load(client, build(), "workshop")
        share = stack.enter_context(shared_folder(driver))
        base = driver.path / "base"
        fill(share)
        fill(base)
        work.make("huge", share / "huge")
        work.make("npm", driver.path)
        master = stack.enter_context(Master(driver))
        [port] = free_ports(1)
        binds = [f"{share}:/share", "disk:/disk"]
        container = stack.enter_context(
            Container(client, "workshop", binds, options=["--privileged", "-p", f"{port}:80", "--tmpfs", "/tmp"])
        )
        client("cp", f"{TOOLS}", f"{container.id}:/tools")
        client("cp", str(driver.path / "npm.tar"), f"{container.id}:/npm.tar")
        container.sh("mkdir /base; mv /npm.tar /tmp/npm.tar; mkdir /www; echo ok >/www/small; busybox httpd -p 80 -h /www")
        for kind in ("big", "small", "many", "repo"):
            container("python3", "/tools/work.py", "make", kind, f"/disk/{kind}", timeout=3600)
        pid = client("inspect", "--format", "{{.State.Pid}}", container.id).strip()
        sshfs = Sshfs(master, container, pid, base)
        stack.callback(sshfs.unmount)
        sshfs.mount()
        everything(results, rounds, driver, client, Places(container, sshfs), share, base, port)


def everything(
    results: Results, rounds: int, driver: Driver, client: Client, places: Places, share: Path, base: Path, port: int
) -> None:
    rows(results, places, rounds, "read", "big", least=1)
    rows(results, places, rounds, "write", "big", least=1)
    rows(results, places, rounds, "tar", "small", least=1.5)
    rows(results, places, rounds, "find", "many", least=1)
    rows(results, places, rounds, "find again", "many", least=2)
    rows(results, places, rounds, "du", "many", least=1)
    rows(results, places, rounds, "du again", "many", least=2)
    rows(results, places, rounds, "unpack", ".", least=1.3)
    for folder in (share, base):
        for left in folder.glob("unpacked-*"):
            shutil.rmtree(left)
    rows(results, places, rounds, "git status", "repo", most=3)
    under_load(results, client, places, port)
    walked(results, driver, places)
