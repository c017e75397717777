"""A machine is suspended and resumed with what runs in it, after a power cut too; one machine for all, with 2 GB."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.images.build import build
from tests.loopback import free_port
from tests.vm.client import Client
from tests.vm.driver import SOAK, Driver, answers, get_port
from tests.vm.test_life import keeper_of
from tests.vm.workshop import load

pytestmark = pytest.mark.vm
HELLO = "wherry.internal/hello"
TIMES = 5 if SOAK else 1
CYCLES = int(os.environ.get("WHERRY_CYCLES", "50"))
LARGEST = 200_000_000  # bytes of the saved memory
COUNT = "i=0; while true; do i=$((i+1)); echo $i $(date +%s); sleep 0.2; done"
# A transaction at a time, told when it is committed.
WRITE = """
import sqlite3, time
db = sqlite3.connect('/data/db', isolation_level=None)
db.execute('pragma synchronous=full')
db.execute('create table if not exists t (n integer primary key, at real)')
n = db.execute('select coalesce(max(n), 0) from t').fetchone()[0]
while True:
    n += 1
    db.execute('begin immediate'); db.execute('insert into t values (?, ?)', (n, time.time())); db.execute('commit')
    print(n, flush=True)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def resting() -> Iterator[Driver]:
    driver = Driver()
    try:
        driver.up("--memory", "2G")
        yield driver
    finally:
        driver.close()


@pytest.fixture(scope="module")
def web(resting: Driver) -> Iterator[int]:
    port = free_port()
    words = (HELLO, "httpd", "-f", "-p", "80", "-h", "/www")
    resting.docker("run", "-d", "--name", "web", "--restart", "always", "-p", f"{port}:80", *words)
    resting.docker("run", "-d", "--name", "counter", HELLO, "sh", "-c", COUNT)
    resting.wait_until(lambda: answers(port), "the page is served")
    yield port
    resting.docker("rm", "-f", "web", "counter")


def suspend(machine: Driver) -> dict[str, Any]:
    done = machine.wherry("suspend", "--json", timeout=300)
    assert done.returncode == 0, done.stdout.decode()
    data: dict[str, Any] = json.loads(done.stdout)["data"]
    assert machine.processes() == []
    return data


def count(machine: Driver) -> tuple[int, int]:
    """The counter's last word, and what it took for the time."""
    number, at = machine.docker("logs", "--tail", "1", "counter").split()
    return int(number), int(at)


def offset(machine: Driver) -> float:
    """The guest's clock less ours in seconds, as far as it is certain."""
    before = time.time()
    told = int(machine.wherry("ssh", "/usr/lib/wherry/vitals", input=b"t\n").stdout) / 1e9
    after = time.time()
    return max(0.0, before - told, told - after)


def test_it_goes_on_where_it_was(resting: Driver, web: int, request: pytest.FixtureRequest) -> None:
    """Containers stand still until the clock is right: no word of the counter is from the time in which it did not run."""
    for _ in range(TIMES):
        before, _ = count(resting)
        done = suspend(resting)
        began = time.time()
        assert done["size"] <= LARGEST
        status = resting.wherry("status")
        assert status.returncode == 3 and b"suspended" in status.stdout
        with pytest.raises(OSError):
            get_port(web)
        time.sleep(max(0.0, began + 5 - time.time()))  # what the clock is behind by
        again = resting.up()
        took = time.time() - began - 5
        assert b"Hello" in get_port(web, 60)  # its ports are back when `up` returns
        after, at = count(resting)
        assert after > before and abs(at - time.time()) < 30
        assert offset(resting) < 0.1
        times = [int(line.split()[1]) for line in resting.docker("logs", "--tail", "200", "counter").splitlines()]
        assert not [at for at in times if began + 1 < at < began + 4], (began, times)
        assert times == sorted(times)
        resting.wait_until(lambda: b"served" in resting.wherry("share", "list").stdout, "the share is served")
        timeline = dict(json.loads(resting.wherry("status", "--json").stdout)["data"]["timeline"])
        assert list(timeline) == ["qemu", "memory", "ssh", "ready"], again.stderr
        stages = ", ".join(f"{name} {at:.2f}" for name, at in timeline.items())
        row = f"saved in {done['seconds']:.2f} s, {done['size'] / 1e6:.0f} MB; up {took:.2f} s, of its keeper: {stages}"
        request.node.user_properties.append(("table", row))


def test_what_it_refuses_and_a_power_cut(resting: Driver, web: int, request: pytest.FixtureRequest) -> None:
    before, _ = count(resting)
    suspend(resting)
    for words in (
        ("config", "set", "memory=3G"), ("up", "--cpus", "1"), ("upgrade",), ("restart", "--force"), ("repair", "--read-only"),
        ("disk", "grow", "200G"), ("up", "--cold"),
    ):  # fmt: skip
        done = resting.wherry(*words)
        assert done.returncode == 6, (words, done.stderr)
    stopped = resting.wherry("stop")
    assert stopped.returncode == 0 and b"is suspended" in stopped.stderr
    resting.kill_all()
    began = time.monotonic()
    resting.up()
    assert b"Hello" in get_port(web, 60)
    request.node.user_properties.append(
        ("table", f"after a power cut: the page {time.monotonic() - began:.2f} s after wherry up")
    )
    assert count(resting)[0] > before


def test_docker_resumes_it_and_a_client_in_the_guest_reconnects(resting: Driver, web: int) -> None:
    heard = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.set()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"here")

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        loop = f"while true; do wget -T 5 -qO- http://10.0.2.2:{server.server_port}/ || true; sleep 0.5; done"
        resting.docker("run", "-d", "--name", "client", HELLO, "sh", "-c", loop)
        try:
            assert heard.wait(60)
            suspend(resting)
            heard.clear()
            assert "web" in resting.docker("ps", "--format", "{{.Names}}")
            assert heard.wait(60)
        finally:
            resting.docker("rm", "-f", "client")
            server.shutdown()


@pytest.mark.soak
def test_fifty_times_with_a_database(resting: Driver, request: pytest.FixtureRequest) -> None:
    """No transaction that was told is lost, the clock is right at once, and nothing grows."""
    client = Client(resting)
    load(client, build(), "workshop")
    client("run", "-d", "--name", "db", "-v", "db:/data", "--entrypoint", "python3", "wherry.test/workshop", "-c", WRITE)
    sizes, starts, ends, offsets = [], [], [], []
    try:
        for _ in range(CYCLES):
            done = suspend(resting)
            told = resting.up()
            offsets.append(offset(resting))
            last = int(resting.docker("logs", "--tail", "1", "db"))
            query = "import sqlite3; print(*sqlite3.connect('/data/db').execute('select count(*), max(n) from t').fetchone())"
            rows, highest = map(int, client("exec", "db", "python3", "-c", query).split())
            assert rows == highest >= last, told.stderr
            sizes.append(done["size"])
            starts.append(json.loads(resting.wherry("status", "--json").stdout)["data"]["timeline"][-1][1])
            ends.append(done["seconds"])
        assert max(offsets) < 0.1
        assert sizes[-1] < 1.2 * max(sizes[:5])
        assert keeper_of(resting).memory_info().rss < 120_000_000
        sshds = int(resting.ssh("ps -o args | grep -c '^sshd-session'"))
        assert sshds < 10
    finally:
        client.run("rm", "-f", "db")
        middle = CYCLES // 2
        request.node.user_properties += [
            ("table", f"{len(starts)} cycles: saved {sorted(ends)[middle]:.2f} s, resumed {sorted(starts)[middle]:.2f} s"),
            (
                "table",
                f"saved memory {min(sizes) / 1e6:.0f} to {max(sizes) / 1e6:.0f} MB, clock off by {max(offsets):.3f} s at most",
            ),
        ]


@pytest.mark.soak
def test_it_sleeps_by_itself(resting: Driver, web: int) -> None:
    """With its containers; `status`, which is asked all the time, is no use of it. What needs the machine has it."""
    assert resting.wherry("config", "set", "idle_suspend=1", "idle_suspend_containers=true").returncode == 0
    try:
        resting.wait_until(lambda: resting.status()["status"] == "suspended", "it sleeps", 300)
        assert b"Hello" in get_port(web, 60)  # one connection, however long its answer takes
        assert resting.status()["status"] == "running"
        resting.wait_until(lambda: resting.status()["status"] == "suspended", "it sleeps", 300)
        silent: dict[str, int] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        crowd = [resting.popen("docker", "ps", **silent) for _ in range(3)]
        assert [command.wait(120) for command in crowd] == [0, 0, 0]
        for words in (("disk", "reclaim"), ("disk", "info"), ("disk", "grow", "101G")):
            resting.wait_until(lambda: resting.status()["status"] == "suspended", "it sleeps", 300)
            done = resting.wherry(*words, timeout=300)
            assert done.returncode == 0, done.stderr.decode()
    finally:
        resting.wherry("config", "unset", "idle_suspend", "idle_suspend_containers")
