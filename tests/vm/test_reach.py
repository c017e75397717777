"""Who listens, and what containers reach: of this computer, of the guest, of wherry's own. Prints what it tried (pytest -s)."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Iterator

import psutil
import pytest

from launcher.config import SSH_PORTS
from tests.vm.driver import Driver

pytestmark = pytest.mark.vm

IMAGE = "wherry.internal/hello"
NETWORK, NETWORK6, SERVED = "reach", "reach6", "reach-served"
DNS = {("10.0.2.53", 53)}


class Listener:
    """A program of the user's, or another machine's sshd, on this computer's loopback: says its word to whoever connects."""

    def __init__(self, ports: Iterator[int]) -> None:
        for port in ports:
            with contextlib.suppress(OSError):
                self.socket = socket.create_server(("127.0.0.1", port))
                break
        self.port: int = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self.socket.accept()
                with stream:
                    stream.sendall(b"HELLO\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


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


def ours(machine: Driver) -> set[tuple[str, int]]:
    """Every address at which a process of this home listens: TCP, and UDP without a peer."""
    found = set()
    for process in machine.processes():
        with contextlib.suppress(psutil.Error):
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN or (one.type == socket.SOCK_DGRAM and not one.raddr):
                    found.add((one.laddr.ip, one.laddr.port))
    return found


def of_guest(machine: Driver) -> set[tuple[str, int]]:
    lines = machine.ssh("netstat -ltnu").splitlines()
    places = [line.split()[3].rpartition(":") for line in lines if line.startswith(("tcp", "udp"))]
    return {(address, int(port)) for address, _, port in places}


def reached(machine: Driver, network: str, places: list[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those of the places to which a container of the network can connect, all tried at once."""
    tries = "\n".join(
        f"(nc -w 4 {address} {port} </dev/null >/dev/null 2>&1 && echo OPEN {address} {port}) &" for address, port in places
    )
    command = ("docker", "run", "--rm", "-i", "--network", network, IMAGE, "sh")
    done = machine.wherry(*command, input=f"{tries}\nwait\necho end\n".encode(), timeout=300)
    lines = done.stdout.decode().splitlines()
    assert lines[-1:] == ["end"], done
    found = {(line.split()[1], int(line.split()[2])) for line in lines[:-1]}
    for address, port in places:
        print(f"{network:<10}{address:>24}:{port:<6}{'open' if (address, port) in found else 'closed'}")
    return found


def test_only_what_was_asked_for_listens_and_only_on_loopback(machine: Driver, networks: dict[str, list[str]]) -> None:
    before = ours(machine)
    assert ("127.0.0.1", machine.status()["ssh_port"]) in before and machine.status()["ssh_port"] in SSH_PORTS
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    publish = ("-p", f"127.0.0.1:{port}:80")
    machine.docker("run", "-d", "--name", SERVED, *publish, IMAGE, "httpd", "-f", "-p", "80", "-h", "/www")
    now = ours(machine)
    print(f"listeners of ours: {sorted(now)}")
    assert {address for address, _ in now} <= {"127.0.0.1", "::1"}
    assert now - before == {("127.0.0.1", port)}
    # And they are all that there is: no QMP, no engine, no keeper on any address.
    assert len([place for place in before if place[1] in SSH_PORTS]) == 1
    assert machine.wherry("config", "set", "host_access", "none").returncode == 0
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:  # replies are no connections
        assert answer.status == 200
    machine.docker("rm", "-f", SERVED)
    machine.wait_until(lambda: ours(machine) == before, "the port is given back")


def test_what_containers_reach(
    machine: Driver, networks: dict[str, list[str]], program: Listener, other_machine: Listener
) -> None:
    """On each network, with each host_access: every address of guest and host, every port at which anything of ours listens."""
    guest = of_guest(machine)
    assert guest == {("10.0.2.15", 22), *DNS}
    gateways = [gateway for found in networks.values() for gateway in found if ":" not in gateway]
    guest_ports = {port for _, port in guest}
    host_ports = {port for _, port in ours(machine)} | {other_machine.port, program.port, *(SSH_PORTS[0], SSH_PORTS[-1])}
    places = [(address, port) for address in ("10.0.2.15", "10.0.2.53", *gateways) for port in sorted(guest_ports)]
    places += [(address, port) for address in ("10.0.2.2", "10.0.2.3", "10.0.2.4", "10.0.2.255") for port in sorted(host_ports)]
    user = ("10.0.2.2", program.port)
    for network in networks:
        assert reached(machine, network, places) == {*DNS, user}
    six = [(gateway, port) for gateway in networks[NETWORK6] if ":" in gateway for port in sorted(guest_ports | host_ports)]
    assert six and reached(machine, NETWORK6, six) == set()
    for access, allowed in (("none", set()), (str(program.port), {user})):
        assert machine.wherry("config", "set", "host_access", access).returncode == 0
        assert reached(machine, NETWORK, places) == DNS | allowed, access
    assert reached(machine, "bridge", places) == {*DNS, user}
    # The host's network is the guest's: there it is only the key that keeps others out (README, "Containers and this
    # computer"). The same look shows that a port at which something of ours does listen is seen as open.
    port = machine.status()["ssh_port"]
    assert reached(machine, "host", [("10.0.2.15", 22), ("10.0.2.2", port)]) == {("10.0.2.2", port)}


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
