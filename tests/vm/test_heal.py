"""Done-when 4: the connection cut, QEMU and keeper stopped or killed; what came back by itself, and how fast, as a table."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.loopback import free_port
from tests.vm.driver import SOAK, Driver, answers, get_port
from tests.vm.test_life import keeper_of, qemu_of

pytestmark = pytest.mark.vm
HELLO = "wherry.internal/hello"
LOST = 60 if SOAK else 18  # seconds of packet loss: it is noticed after 16 at the latest
STOPPED = 60 if SOAK else 5  # seconds of SIGSTOP for the keeper
SILENCES = 20 if SOAK else 1
COLUMNS = ("socket", "exec", "port", "container", "clock", "under way")
HEAD = f"{'back after, in seconds':<24}" + "".join(f"{name:<11}" for name in COLUMNS)


def get(path: str, target: str, timeout: float = 60) -> bytes:
    """One request on the engine's socket; the whole answer, empty when the connection ends without one."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(timeout)
        stream.connect(path)
        stream.sendall(f"GET {target} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := stream.recv(65536):
            answer += data
        return answer


class Events:
    """`docker events`, as far as it hears one."""

    def __init__(self, path: str) -> None:
        self.heard = threading.Event()
        self.ended = threading.Event()
        self._stream = socket.socket(socket.AF_UNIX)
        self._stream.connect(path)
        self._stream.sendall(b"GET /events HTTP/1.1\r\nHost: docker\r\n\r\n")
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while data := self._stream.recv(65536):
                if b"healed" in data:
                    self.heard.set()
        except OSError:
            pass
        self.ended.set()

    def close(self) -> None:
        try:
            self._stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.ended.wait(10)
        self._stream.close()


@dataclass
class Row:
    broken: str
    back: dict[str, str] = field(default_factory=dict)
    mended: str = ""

    def line(self) -> str:
        return f"{self.broken:<24}" + "".join(f"{self.back.get(name, '-'):<11}" for name in COLUMNS) + self.mended


class Look(threading.Thread):
    """Asks again and again, and keeps when there was an answer."""

    def __init__(self, answers: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self._answers = answers
        self._over = threading.Event()
        self.at = 0.0
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.05):
            try:
                if self._answers():
                    self.at = time.monotonic()
                    return
            except OSError:
                continue

    def stop(self) -> None:
        self._over.set()
        self.join(120)


class Patient:
    """A running machine with one of each part in use: looks from `watch` on at when each answers again."""

    def __init__(self, machine: Driver, port: int, broken: str) -> None:
        self.machine = machine
        self.port = port
        self.row = Row(broken)
        self.socket = machine.status()["socket"]
        self.events = Events(self.socket)
        self.session = machine.popen("ssh", "sleep 100000", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        machine.wait_until(lambda: machine.guest_has("sleep 100000"), "the session runs")
        self.looks: dict[str, Look] = {}

    def watch(self, *names: str) -> None:
        answers: dict[str, Callable[[], bool]] = {
            "socket": lambda: get(self.socket, "/_ping").endswith(b"OK"),
            "exec": lambda: self.machine.wherry("ssh", "true").returncode == 0,
            "port": lambda: b"Hello from Wherry." in get_port(self.port),
            "container": lambda: self.machine.container_state("lasting") == "running",
            "clock": lambda: clock_is_right(self.machine),
        }
        self.looks = {name: Look(answers[name]) for name in ("socket", "exec", "port", *names)}

    def back_since(self, began: Callable[[], float]) -> None:
        """All came back; `began` tells, once they did, from which moment on that was possible."""
        deadline = time.monotonic() + 300  # a hang guard
        for name, look in self.looks.items():
            look.join(max(0, deadline - time.monotonic()))
            assert look.at, f"{name} did not come back after {self.row.broken}"
        since = began()
        self.row.back |= {name: f"{max(0.0, look.at - since):.1f} s" for name, look in self.looks.items()}

    def what_was_under_way(self, *, lost: bool | None) -> None:
        """An exec session and an event stream that were open when it broke: ended with a clear error, or unharmed."""
        if lost is None:
            lost = self.session.poll() is not None
        if lost:
            _, errors = self.session.communicate(timeout=120)
            assert self.session.returncode in (125, 255), errors
            assert b"wherry: " in errors, errors
            assert self.events.ended.wait(60)
            events = Events(self.socket)
        else:
            assert self.session.poll() is None
            assert not self.events.ended.is_set()
            events = self.events
        self.machine.ssh("docker volume create healed && docker volume rm healed")
        assert events.heard.wait(60)
        if lost:
            events.close()
        self.row.back["under way"] = "error" if lost else "unharmed"

    def close(self) -> None:
        for look in self.looks.values():
            look.stop()
        self.events.close()
        self.session.terminate()
        self.session.communicate()
        mended = (self.machine.status().get("health") or {}).get("mended")
        self.row.mended = f"status: {mended['text']} in {mended['seconds']} s" if mended else "status: -"


@pytest.fixture(scope="module")
def port(machine: Driver) -> Iterator[int]:
    """Of a container that is to run through it all."""
    number = free_port()
    words = ("httpd", "-f", "-p", "80", "-h", "/www")
    machine.docker("run", "-d", "--name", "lasting", "--restart", "always", "-p", f"{number}:80", HELLO, *words)
    machine.wait_until(lambda: answers(number), "the port answers")
    machine.ssh("sync")  # that it runs the engine writes by a rename, which ext4 keeps from 5 s later on
    yield number
    machine.docker("rm", "-f", "lasting")


@pytest.fixture
def patient(request: pytest.FixtureRequest, machine: Driver, port: int) -> Iterator[Patient]:
    made = Patient(machine, port, request.node.name.removeprefix("test_").replace("_", " "))
    try:
        yield made
    finally:
        made.close()
        request.node.user_properties += [("table", HEAD), ("table", made.row.line())]


def engine_health(machine: Driver) -> Any:
    return (machine.status().get("health") or {}).get("parts", {}).get("engine", {}).get("state")


def test_the_guests_sshd_killed(patient: Patient) -> None:
    began, mended = time.monotonic(), patient.machine.mended()
    patient.machine.wherry("ssh", "killall -9 sshd sshd-session")
    patient.watch()
    patient.back_since(lambda: began)
    patient.what_was_under_way(lost=True)
    patient.machine.wait_for_mended("the connection to the machine ended", mended)


def test_packets_lost(patient: Patient) -> None:
    # Undone by the guest itself, whatever becomes of this test, which tells by its own clock when.
    rule = "PREROUTING -i eth0 -j DROP"
    lose = (
        f"sleep 1; iptables -t raw -I {rule}; sleep {LOST}; iptables -t raw -D {rule}; cut -d' ' -f1 /proc/uptime >/run/mended"
    )
    done = patient.machine.wherry("ssh", f'rm -f /run/mended; setsid sh -c "{lose}" >/dev/null 2>&1 </dev/null &')
    assert done.returncode == 0
    patient.machine.wait_until(lambda: engine_health(patient.machine) == "repairing", "the loss is noticed")
    patient.watch()
    # A call that comes now waits, and is answered or told.
    words = patient.machine.wherry("ssh", "true")
    assert words.returncode == 0 or b"has not answered for" in words.stderr

    def flowing() -> float:
        now = time.monotonic()
        then, at = patient.machine.ssh("cut -d' ' -f1 /proc/uptime /run/mended").split()
        return now - (float(then) - float(at))

    patient.back_since(flowing)
    patient.what_was_under_way(lost=None)


def test_qemu_stopped(patient: Patient) -> None:
    qemu = qemu_of(patient.machine)
    try:
        qemu.suspend()
        if SOAK:
            time.sleep(60)  # what is tried
        patient.machine.wait_until(lambda: engine_health(patient.machine) == "repairing", "it is noticed")
        patient.watch("clock")
    finally:
        began = time.monotonic()
        qemu.resume()
    patient.back_since(lambda: began)
    patient.what_was_under_way(lost=SOAK)


def clock_is_right(machine: Driver) -> bool:
    """Asked as the keeper asks; a docker client that starts in the guest would take seconds."""
    before = time.time()
    told = machine.wherry("ssh", "/usr/lib/wherry/vitals", input=b"t\n").stdout
    after = time.time()
    return bool(told) and before - 0.1 <= int(told) / 1e9 <= after + 0.1


def test_the_keeper_stopped(patient: Patient) -> None:
    keeper = keeper_of(patient.machine)
    try:
        keeper.suspend()
        mended = patient.machine.mended()
        time.sleep(STOPPED)
        patient.watch("clock")
    finally:
        began = time.monotonic()
        keeper.resume()
    patient.back_since(lambda: began)
    patient.machine.wait_for_mended("woke after", mended)
    if SOAK:  # on a quiet computer; the table has it
        assert patient.machine.status()["health"]["mended"]["seconds"] < 2
    # The guest's sshd asks too, and gives a keeper up that was silent for 15 s.
    patient.what_was_under_way(lost=None)


def test_a_clock_that_is_wrong(patient: Patient) -> None:
    for wrong in ("+7", "-3600"):
        patient.machine.ssh(f"date -u -s @$(( $(date +%s) {wrong} ))")
        began = time.monotonic()
        patient.watch("clock")
        patient.back_since(lambda began=began: began)  # type: ignore[misc]
    patient.what_was_under_way(lost=False)


def test_the_keeper_killed(patient: Patient) -> None:
    keeper = keeper_of(patient.machine)
    patient.machine.ssh("echo alive >/run/alive")
    keeper.send_signal(signal.SIGKILL)
    keeper.wait(60)
    # Nobody listens: a docker client alone starts no keeper; status and doctor say what does.
    with pytest.raises(OSError):
        get(patient.socket, "/_ping")
    said = patient.machine.status()
    assert "QEMU and the containers go on" in said["problem"] and said["next"] == "wherry up"
    assert f"nobody listens at {patient.socket}" in patient.machine.wherry("doctor").stdout.decode()
    began = time.monotonic()
    patient.watch()
    patient.back_since(lambda: began)
    assert patient.machine.ssh("cat /run/alive") == "alive\n"
    patient.what_was_under_way(lost=True)


class Knocks(threading.Thread):
    """Clients that do not let go: a new connection to the port every 0.2 s, whoever answers."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._over = threading.Event()
        self._streams: deque[socket.socket] = deque()

    def run(self) -> None:
        while not self._over.wait(0.2):
            with contextlib.suppress(OSError):
                self._streams.append(socket.create_connection(("127.0.0.1", self._port), timeout=3))
                self._streams[-1].sendall(b"GET / HTTP/1.0\r\n\r\n")
            while len(self._streams) > 50:
                self._streams.popleft().close()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(30)
        while self._streams:
            self._streams.popleft().close()


def test_qemu_killed(patient: Patient) -> None:
    qemu, mended = qemu_of(patient.machine), patient.machine.mended()
    with Knocks(patient.port):
        assert b"Hello" in get_port(patient.port, 60)  # what the keeper had QEMU do for it dies with QEMU
        began = time.monotonic()
        qemu.send_signal(signal.SIGKILL)
        qemu.wait(60)
        patient.watch("container")
        patient.back_since(lambda: began)
    patient.what_was_under_way(lost=True)
    patient.machine.wait_for_mended("started again", mended)


def peers(machine: Driver) -> set[int]:
    """The ports from which sshd has connections, as the guest sees them."""
    lines = [line.split() for line in machine.ssh("cat /proc/net/tcp /proc/net/tcp6").splitlines()]
    here_there = [(words[1], words[2]) for words in lines if words[3] == "01"]  # established
    return {int(there.split(":")[1], 16) for here, there in here_there if here.endswith(":0016")}


def keepers(machine: Driver) -> int:
    """The port of the keeper's own connection: sshd tells it to what runs a command. The server of the shares has another."""
    lines = machine.ssh(r"tr '\0' '\n' </proc/$PPID/environ").splitlines()
    return int(next(line for line in lines if line.startswith("SSH_CONNECTION=")).split()[1])


def of_sshd(machine: Driver) -> Counter[str]:
    """The programs of sshd's sessions and of all below them."""
    processes = {}
    for line in machine.ssh("ps -o pid,ppid,args").splitlines()[1:]:
        pid, parent, program, *_ = line.split()
        processes[pid] = parent, program

    def is_of_it(pid: str) -> bool:
        parent, program = processes.get(pid, ("", ""))
        return program.startswith("sshd-session") or (parent in processes and is_of_it(parent))

    return Counter(program for pid, (_, program) in processes.items() if is_of_it(pid))


def test_reconnects_leave_nothing_behind(machine: Driver) -> None:
    """The guest hears nothing more of a connection, not even its end: it must find out itself."""
    machine.ssh("true")
    keeper = keeper_of(machine)
    machine.wait_until(lambda: len(peers(machine)) == 2, "connections of tests before are gone")
    before, threads, descriptors = of_sshd(machine), keeper.num_threads(), keeper.num_fds()
    assert before["sshd-session:"], before
    silenced: set[int] = set()
    for _ in range(SILENCES):
        machine.wait_until(lambda: len(peers(machine) - silenced) == 2, "the keeper has one connection")
        port = keepers(machine)
        silenced.add(port)
        mended = machine.mended()
        rule = f"PREROUTING -p tcp --dport 22 --sport {port} -j DROP"
        # Undone by the guest itself, whatever becomes of this test; the answer to this very command comes first.
        silence = f"sleep 2; iptables -t raw -I {rule}; sleep 60; iptables -t raw -D {rule}"
        machine.ssh(f'setsid sh -c "{silence}" >/dev/null 2>&1 </dev/null &')
        machine.wait_for_mended("no answer for", mended)
    # sshd asks as well, and gives up 15 s later.
    machine.wait_until(lambda: not of_sshd(machine) - before, "the old processes are gone", 120)
    machine.wait_until(lambda: keeper.num_threads() <= threads and keeper.num_fds() <= descriptors, "the keeper's parts", 120)
