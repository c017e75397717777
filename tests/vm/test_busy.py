"""What the keeper costs at rest; and a guest whose CPUs are all taken answers late, and is not given up for that."""

from __future__ import annotations

import socket
import statistics
import subprocess
import threading
import time
from http.client import HTTPConnection

import pytest

from tests.vm.client import Client
from tests.vm.driver import SOAK, Driver
from tests.vm.test_life import keeper_of
from tests.vm.test_ports import free_port

pytestmark = [pytest.mark.vm, pytest.mark.skipif(not SOAK, reason="two minutes of load")]
HELLO = "wherry.internal/hello"
SECONDS = 120
CLIENTS = 200


class Asker(threading.Thread):
    """One connection that asks again and again."""

    def __init__(self, path: str, until: float) -> None:
        super().__init__(daemon=True)
        self._http = HTTPConnection("docker", timeout=120)
        self._path = path
        self._until = until
        self.took: list[float] = []
        self.error = ""

    def run(self) -> None:
        self._http.sock = socket.socket(socket.AF_UNIX)
        self._http.sock.settimeout(120)
        try:
            self._http.sock.connect(self._path)
            while time.monotonic() < self._until:
                began = time.monotonic()
                self._http.request("GET", "/containers/json")
                with self._http.getresponse() as answer:
                    body = answer.read()
                assert answer.status == 200, body
                self.took.append(time.monotonic() - began)
        except Exception as error:  # told by the test
            self.error = repr(error)
        finally:
            self._http.close()


def test_the_keeper_at_rest(machine: Driver) -> None:
    """Everything on: the relay, the engine's events, published ports of both protocols, somebody who follows the events."""
    client = Client(machine)
    ports = [word for port in (free_port(), free_port()) for word in ("-p", f"{port}:80", "-p", f"{port}:80/udp")]
    client("run", "-d", "--name", "idle", *ports, HELLO, "sleep", "100000")
    follower = client.popen("events", stdout=subprocess.DEVNULL)
    try:
        keeper = keeper_of(machine)
        time.sleep(30)  # what the start left is done
        before = keeper.cpu_times()
        time.sleep(SECONDS)
        after = keeper.cpu_times()
        memory = keeper.memory_info().rss
    finally:
        follower.terminate()
        follower.wait()
        client("rm", "-f", "idle")
    spent = (after.user + after.system - before.user - before.system) / SECONDS
    print(f"\nthe keeper at rest: {spent:.2%} of a core over {SECONDS} s, {memory / 1e6:.0f} MB")
    assert spent < 0.003
    assert memory < 80e6


def test_no_reconnect_while_everything_is_busy(machine: Driver) -> None:
    cpus = int(machine.ssh("nproc"))
    names = [f"busy-{number}" for number in range(3 * cpus)]
    session = machine.popen("ssh", "sleep 100000", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    machine.wait_until(lambda: machine.guest_has("sleep 100000"), "the session runs")
    [log] = machine.path.glob("home/machines/*/keeper.log")
    before = log.read_text()
    mended = machine.status()["health"]["mended"]
    try:
        for name in names:
            machine.docker("run", "-d", "--name", name, HELLO, "sh", "-c", "while :; do :; done")
        askers = [Asker(machine.status()["socket"], time.monotonic() + SECONDS) for _ in range(CLIENTS)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(SECONDS + 300)
        load = machine.ssh("cat /proc/loadavg").split()[0]
        status = machine.status()
        alive = session.poll() is None
    finally:
        machine.wherry("docker", "rm", "-f", *names)
        session.terminate()
        session.communicate()
    took = sorted(seconds for asker in askers for seconds in asker.took)
    log_now = log.read_text().removeprefix(before)
    again = [line for line in log_now.splitlines() if "connecting again" in line or "no answer for" in line]
    print(f"\n{cpus} CPUs, {len(names)} loops, load {load}; {CLIENTS} connections for {SECONDS} s: {len(took)} answers,")
    print(f"median {statistics.median(took):.2f} s, 99 % within {took[len(took) * 99 // 100]:.2f} s, slowest {took[-1]:.2f} s")
    print(f"doubts: {again}; clock {status['health']['parts'].get('clock')}")
    assert [asker.error for asker in askers if asker.error] == []
    assert again == []
    assert status["health"]["mended"] == mended
    assert alive
