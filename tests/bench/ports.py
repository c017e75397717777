"""Published ports, against QEMU's own hostfwd and against OpenSSH's forwarding of the same port."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psutil

from tests.bench.openssh import Master
from tests.bench.place import up
from tests.bench.results import Results, Row, in_turn, seconds
from tests.vm.client import Client
from tests.vm.driver import Driver

HELLO = "wherry.internal/hello"
MEGABYTES = 128
FILLED = f"head -c {MEGABYTES}m /dev/zero >/srv/zeros; echo ok >/srv/small; exec httpd -f -p 80 -h /srv"
AT_ONCE = 200
RUNS = 100
PORTS = 20  # of one container
CONTAINERS = 25
LINEAR = 1.3  # a port of the last containers against one of the first


def get(port: int, path: str = "/small") -> int:
    """Bytes of the answer, head included; of a connection of its own."""
    buffer, total = memoryview(bytearray(1 << 20)), 0
    with socket.create_connection(("127.0.0.1", port), timeout=120) as stream:
        stream.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        while count := stream.recv_into(buffer):
            if not total:
                assert bytes(buffer[:12]) == b"HTTP/1.0 200" or bytes(buffer[:12]) == b"HTTP/1.1 200", bytes(buffer[:80])
            total += count
    assert total, "an empty answer"
    return total


def whole(port: int) -> None:
    assert get(port, "/zeros") > MEGABYTES << 20


def burst(ports: Iterable[int]) -> list[float]:
    """Seconds of each of the requests, all sent at once."""
    ports = list(ports)
    with ThreadPoolExecutor(len(ports)) as pool:
        return sorted(pool.map(lambda port: seconds(lambda: get(port)), ports))


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    found = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return found


class Hostfwd:
    """QEMU's own port for a published one: the rule that the keeper has for two seconds after a connection."""

    def __init__(self, driver: Driver, published: int) -> None:
        [self._qemu] = [found for found in driver.processes() if "qemu-system" in found.name()]
        self._ssh_port = driver.status()["ssh_port"]
        self._published = published

    def port(self) -> int:
        get(self._published)
        found = {one.laddr.port for one in self._qemu.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
        [port] = found - {self._ssh_port}
        return int(port)


def one_stream(results: Results, rounds: int, published: int, against: str, other: Callable[[], int], least: float) -> None:
    ports: list[int] = []

    def find() -> None:
        ports[:] = [other()]

    whole(published)  # warm
    find()
    whole(ports[0])
    ours, theirs = in_turn(rounds, lambda: whole(published), lambda: whole(ports[0]), find)
    speeds = [MEGABYTES / value for value in ours], [MEGABYTES / value for value in theirs]
    results.add(Row("published port, one stream", against, "MB/s", *speeds).at_least(least))


def at_once(results: Results, rounds: int, published: int, forwarded: int) -> None:
    """What fails here fails the run; what fails there is counted as its time."""
    slowest: list[float] = []
    failed = 0

    def ours() -> None:
        slowest.append(burst([published] * AT_ONCE)[-1])

    def theirs() -> None:
        nonlocal failed
        try:
            burst([forwarded] * AT_ONCE)
        except (OSError, AssertionError):
            failed += 1

    first, second = in_turn(rounds, ours, theirs)
    row = Row(f"{AT_ONCE} connections at once", "ssh -L", "s", first, second)
    results.add(row.at_most(1, "not slower, 0 failed"))
    results.cost(f"{AT_ONCE} at once", slowest=[round(one, 2) for one in slowest], rounds_with_failures_of_ssh=failed)


def first_answers(results: Results, client: Client) -> None:
    """One request, made when `docker run -d -p` returns."""
    took: list[float] = []
    failures = 0
    for port in (number for _ in range(RUNS // PORTS) for number in free_ports(PORTS)):
        name = client("run", "-d", "-p", f"{port}:80", HELLO, "httpd", "-f", "-p", "80", "-h", "/www").strip()
        try:
            took.append(seconds(partial(get, port, "/")) * 1000)
        except (OSError, AssertionError):
            failures += 1
        client("rm", "-f", name)
    goal = f"{RUNS} of {RUNS}: {RUNS - failures}"
    results.add(Row("first answer after docker run -d -p", "", "ms", took, goal=goal, met=not failures))


def many(results: Results, client: Client) -> None:
    """Time per port in the first containers and in the last."""
    ports, took = free_ports(PORTS * CONTAINERS), []
    for number in range(CONTAINERS):
        words = [word for port in ports[number * PORTS : (number + 1) * PORTS] for word in ("-p", f"{port}:80")]
        words += [HELLO, "httpd", "-f", "-p", "80", "-h", "/www"]
        took.append(seconds(partial(client, "run", "-d", "--name", f"many{number}", *words)) * 1000 / PORTS)
    reached = sum(get(port, "/") > 0 for port in ports)
    client("rm", "-f", *(f"many{number}" for number in range(CONTAINERS)), timeout=600)
    left = listening() & set(ports)
    row = Row(f"{len(ports)} ports, one of the last 100", "one of the first 100", "ms", took[-5:], took[:5])
    goal = f"at most {LINEAR}; {reached} reached, {len(left)} left"
    results.add(row.at_most(LINEAR, goal, also=reached == len(ports) and not left))


def listening() -> set[int]:
    """Ports of this computer on which somebody listens."""
    return {one.laddr.port for one in psutil.net_connections("tcp") if one.laddr and one.status == psutil.CONN_LISTEN}


def measure(results: Results, rounds: int, _calls: int) -> None:
    """Boots one machine in a home of its own."""
    driver = Driver()
    try:
        up(results, driver)
        client = Client(driver)
        published, forwarded = free_ports(2)
        client("run", "-d", "--name", "filled", "--tmpfs", "/srv", "-p", f"{published}:80", HELLO, "sh", "-c", FILLED)
        hostfwd = Hostfwd(driver, published)
        with Master(driver) as master:
            master.forward(f"127.0.0.1:{forwarded}", f"127.0.0.1:{published}")
            driver.wait_until(lambda: answers(published) and answers(forwarded), "the file is written")
            one_stream(results, rounds, published, "raw hostfwd", hostfwd.port, 0.8)
            one_stream(results, rounds, published, "ssh -L", lambda: forwarded, 1.5)
            at_once(results, rounds, published, forwarded)
        client("rm", "-f", "filled")
        first_answers(results, client)
        many(results, client)
    finally:
        driver.close()


def answers(port: int) -> bool:
    try:
        return get(port) > 0
    except (OSError, AssertionError):
        return False
