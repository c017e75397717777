"""Who listens, and what containers reach: of this computer, of the guest, of wherry's own. Prints what it tried (pytest -s)."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from launcher.config import SSH_PORTS
from tests.guest.helpers import compiler
from tests.vm.driver import Driver, get_port

pytestmark = pytest.mark.vm

IMAGE = "wherry.internal/hello"
KNOCK = "wherry.test/knock"
NETWORK, NETWORK6, SERVED = "reach", "reach6", "reach-served"
DNS = {("tcp", "10.0.2.53", 53), ("udp", "10.0.2.53", 53)}
PROTOCOLS = ("tcp", "udp")

Place = tuple[str, str, int]  # protocol, address, port


class Listener:
    """A program of the user's, or another machine's sshd, on this computer's loopback: says its word to whoever connects, and
    to each datagram."""

    def __init__(self, ports: Iterator[int]) -> None:
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for port in ports:
            with contextlib.suppress(OSError):
                self.socket = socket.create_server(("127.0.0.1", port))
                break
        self.port: int = self.socket.getsockname()[1]
        self.datagrams.bind(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, daemon=True).start()
        threading.Thread(target=self._answer, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self.socket.accept()
                with stream:
                    stream.sendall(b"HELLO\n")

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while (heard := self.datagrams.recvfrom(512))[1] is not None:  # None: it was shut down
                self.datagrams.sendto(b"HELLO\n", heard[1])

    def close(self) -> None:
        for one in (self.socket, self.datagrams):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def program() -> Iterator[Listener]:
    made = Listener(iter([0]))
    yield made
    made.close()


@pytest.fixture
def other_machine() -> Iterator[Listener]:
    made = Listener(iter(SSH_PORTS))
    yield made
    made.close()


@pytest.fixture
def networks(machine: Driver) -> Iterator[dict[str, list[str]]]:
    """A user network, one with IPv6, and a published port; the gateways of each network."""
    machine.docker("network", "create", NETWORK)
    machine.docker("network", "create", "--ipv6", "--subnet", "fd00:5757::/64", "--gateway", "fd00:5757::1", NETWORK6)
    try:
        form = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
        names = ("bridge", NETWORK, NETWORK6)
        yield {name: machine.docker("network", "inspect", "--format", form, name).split() for name in names}
    finally:
        machine.wherry("docker", "rm", "-f", SERVED)
        machine.docker("network", "rm", NETWORK, NETWORK6)
        assert machine.wherry("config", "unset", "host_access").returncode == 0


@pytest.fixture(scope="module")
def knock(machine: Driver) -> Iterator[None]:
    """The image with a program that sends datagrams, which its busybox has none for."""
    folder = machine.path / "knock"
    folder.mkdir()
    source = Path(__file__).with_name("knock.c")
    subprocess.run([compiler(), "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", folder / "knock", source], check=True)
    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY knock /bin/knock\n")
    machine.docker("build", "-q", "-t", KNOCK, str(folder))
    yield
    machine.docker("rmi", "-f", KNOCK)


def ours(machine: Driver) -> set[Place]:
    """Every address at which a process of this home listens: TCP, and UDP without a peer."""
    found = set()
    for process in machine.processes():
        with contextlib.suppress(psutil.Error):
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN or (one.type == socket.SOCK_DGRAM and not one.raddr):
                    found.add(("udp" if one.type == socket.SOCK_DGRAM else "tcp", one.laddr.ip, one.laddr.port))
    return found


def of_guest(machine: Driver) -> set[Place]:
    lines = [line.split() for line in machine.ssh("netstat -ltnu").splitlines() if line.startswith(PROTOCOLS)]
    places = [(words[0][:3], *words[3].rpartition(":")) for words in lines]
    return {(proto, address, int(port)) for proto, address, _, port in places}


def elsewhere() -> list[str]:
    """This computer's addresses on networks, by which what listens on its loopback is not reached."""
    found = [one.address for entries in psutil.net_if_addrs().values() for one in entries if one.family == socket.AF_INET]
    return [address for address in found if not address.startswith("127.")]


def of_both(addresses: list[str], ports: set[int]) -> list[Place]:
    return [(proto, address, port) for address in addresses for port in sorted(ports) for proto in PROTOCOLS]


def reached(machine: Driver, network: str, places: list[Place]) -> set[Place]:
    """Those of the places to which a container of the network can connect, or that answer its datagrams, all tried at once."""
    tries = [
        f"(nc -w 4 {address} {port} </dev/null >/dev/null 2>&1 && echo tcp OPEN {address} {port}) &"
        for proto, address, port in places if proto == "tcp"
    ]  # fmt: skip
    knocks = [f"{address} {port}" for proto, address, port in places if proto == "udp"]
    tries.append(f"knock {' '.join(knocks)} | sed 's/^/udp /' &")
    command = ("docker", "run", "--rm", "-i", "--network", network, KNOCK, "sh")
    done = machine.wherry(*command, input="\n".join([*tries, "wait", "echo end", ""]).encode(), timeout=300)
    lines = done.stdout.decode().splitlines()
    assert lines[-1:] == ["end"], done
    found = {(words[0], words[2], int(words[3])) for words in map(str.split, lines[:-1])}
    for proto, address, port in places:
        print(f"{network:<10}{proto:<5}{address:>24}:{port:<6}{'open' if (proto, address, port) in found else 'closed'}")
    return found


@contextlib.contextmanager
def again_and_again(work: Callable[[], object]) -> Iterator[None]:
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.2):
            with contextlib.suppress(OSError):  # a guest that is busy answers the next time
                work()

    worker = threading.Thread(target=run)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join(60)


def test_only_what_was_asked_for_listens_and_only_on_loopback(machine: Driver, networks: dict[str, list[str]]) -> None:
    before = ours(machine)
    assert ("tcp", "127.0.0.1", machine.status()["ssh_port"]) in before and machine.status()["ssh_port"] in SSH_PORTS
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    publish = ("-p", f"127.0.0.1:{port}:80", "-p", f"127.0.0.1:{port}:7000/udp")
    machine.docker("run", "-d", "--name", SERVED, *publish, IMAGE, "httpd", "-f", "-p", "80", "-h", "/www")
    now = ours(machine)
    print(f"listeners of ours: {sorted(now)}")
    assert {address for _, address, _ in now} <= {"127.0.0.1", "::1"}
    published = {(proto, "127.0.0.1", port) for proto in PROTOCOLS}
    assert now - before == published
    # And they are all that there is: no QMP, no engine, no keeper on any address.
    assert len([place for place in before if place[2] in SSH_PORTS]) == 1
    assert machine.wherry("config", "set", "host_access", "none").returncode == 0
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:  # replies are no connections
        assert answer.status == 200
    looks: list[set[Place]] = []  # the last is what was waited for: another one may come too late for TCP's

    def both_lead_inside() -> bool:
        looks.append(ours(machine))
        return len(looks[-1] - before) == 4

    # With traffic QEMU has a port of its own for each, on the loopback too.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer, again_and_again(lambda: get_port(port)):
        peer.sendto(b"hello", ("127.0.0.1", port))
        machine.wait_until(both_lead_inside, "both ports have a way into the guest")
    busy = looks[-1]
    print(f"with traffic: {sorted(busy - now)}")
    assert sorted((proto, address) for proto, address, _ in busy - now) == [("tcp", "127.0.0.1"), ("udp", "127.0.0.1")]
    machine.wait_until(lambda: {place[0] for place in ours(machine) - now} == {"udp"}, "that of TCP goes when nobody connects")
    machine.docker("rm", "-f", SERVED)
    machine.wait_until(lambda: ours(machine) == before, "the ports are given back, and what led from them")


def test_what_containers_reach(
    machine: Driver, networks: dict[str, list[str]], knock: None, program: Listener, other_machine: Listener
) -> None:
    """On each network, with each host_access, by TCP and UDP: every address of guest and host, every port that is ours."""
    guest = of_guest(machine)
    assert guest == {("tcp", "10.0.2.15", 22), *DNS}
    gateways = [gateway for found in networks.values() for gateway in found if ":" not in gateway]
    guest_ports = {port for _, _, port in guest}
    ssh_ports = {SSH_PORTS[0], SSH_PORTS[-1]}
    host_ports = {port for _, _, port in ours(machine)} | {other_machine.port, program.port, *ssh_ports}
    places = of_both(["10.0.2.15", "10.0.2.53", *gateways], guest_ports)
    places += of_both(["10.0.2.2", "10.0.2.3", "10.0.2.4", "10.0.2.255", *elsewhere()], host_ports)
    # The range of the sshds is TCP's: datagrams to such a port are a program of the user's.
    user = {("tcp", "10.0.2.2", program.port), *(("udp", "10.0.2.2", one.port) for one in (program, other_machine))}
    chosen = {(proto, "10.0.2.2", program.port) for proto in PROTOCOLS}
    for network in networks:
        assert reached(machine, network, places) == DNS | user
    six = of_both([gateway for gateway in networks[NETWORK6] if ":" in gateway], guest_ports | host_ports)
    assert six and reached(machine, NETWORK6, six) == set()
    for access, allowed in (("none", set()), (str(program.port), chosen)):
        assert machine.wherry("config", "set", "host_access", access).returncode == 0
        assert reached(machine, NETWORK, places) == DNS | allowed, access
    assert reached(machine, "bridge", places) == DNS | chosen
    # The host's network is the guest's: there it is only the key that keeps others out (README, "Containers and this
    # computer"). The same look shows that a port at which something of ours does listen is seen as open.
    port = machine.status()["ssh_port"]
    assert reached(machine, "host", of_both(["10.0.2.15", "10.0.2.2"], {22, port})) == {("tcp", "10.0.2.2", port)}


def test_the_host_has_a_name_everywhere(machine: Driver, networks: dict[str, list[str]], program: Listener) -> None:
    script = " && ".join(
        f"nc -w 20 {name} {program.port} </dev/null" for name in ("host.docker.internal", "HOST.wherry.internal")
    )
    for network in ("bridge", NETWORK, "host"):
        done = machine.wherry("docker", "run", "--rm", "--network", network, IMAGE, "sh", "-c", script)
        assert done.stdout == b"HELLO\n" * 2, (network, done)
    added = machine.docker("run", "--rm", "--add-host", "mine:host-gateway", IMAGE, "cat", "/etc/hosts")
    assert "10.0.2.2\tmine" in added
    assert machine.ssh(f"nc -w 20 host.docker.internal {program.port} </dev/null") == "HELLO\n"
    recipe = f"FROM {IMAGE}\nRUN nc -w 20 host.docker.internal {program.port} </dev/null | grep HELLO\n"
    built = machine.wherry("docker", "build", "--no-cache", "-", input=recipe.encode(), timeout=300)
    assert built.returncode == 0, built.stderr.decode()
