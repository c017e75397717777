"""Done-when 4: the connection cut, QEMU and keeper stopped or killed; what came back by itself, and how fast, as a table."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.vm.driver import SOAK, Driver
from tests.vm.test_life import keeper_of, qemu_of

pytestmark = pytest.mark.vm
LONG = 60 if SOAK else 14  # seconds of packet loss, and of SIGSTOP; two answers missing take 10


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
        return f"{self.broken:<28}" + "".join(f"{part} {said:<14}" for part, said in self.back.items()) + self.mended


class Patient:
    """A running machine with one of each part in use; `part` measures until each answers again."""

    def __init__(self, machine: Driver, broken: str) -> None:
        self.machine = machine
        self.row = Row(broken)
        self.socket = machine.status()["socket"]
        self.events = Events(self.socket)
        self.session = machine.popen("ssh", "sleep 100000", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        machine.wait_until(lambda: machine.guest_has("sleep 100000"), "the session runs")
        self.began = 0.0

    def break_(self, how: Callable[[], object]) -> None:
        self.began = time.monotonic()
        how()

    def repaired(self) -> None:
        """What was done to it is undone; from here on it is the keeper's time."""
        self.began = time.monotonic()

    def part(self, name: str, answers: Callable[[], bool], seconds: float = 180) -> None:
        self.machine.wait_until(lambda: _quiet(answers), f"{name} after {self.row.broken}", seconds)
        self.row.back[name] = f"{time.monotonic() - self.began:.1f} s"

    def engine(self) -> None:
        """The engine's socket, with no wherry command run."""
        self.part("socket", lambda: get(self.socket, "/_ping").endswith(b"OK"))

    def exec_session(self) -> None:
        self.part("exec", lambda: self.machine.wherry("ssh", "true").returncode == 0)

    def what_was_under_way(self, *, lost: bool | None) -> None:
        """An exec session and an event stream that were open when it broke: ended with a clear error, or unharmed."""
        if lost is None:
            lost = self.session.poll() is not None
        if lost:
            _, errors = self.session.communicate(timeout=120)
            assert self.session.returncode in (125, 255), errors
            assert b"wherry: " in errors, errors
            assert self.events.ended.wait(60)
        else:
            assert self.session.poll() is None
            assert not self.events.ended.is_set()
            self.machine.ssh("docker volume create healed && docker volume rm healed")
            assert self.events.heard.wait(60)
        self.row.back["open session, events"] = "error" if lost else "unharmed"

    def fresh_events(self) -> None:
        events = Events(self.socket)
        self.machine.ssh("docker volume create healed && docker volume rm healed")
        assert events.heard.wait(60)
        events.close()

    def close(self) -> None:
        self.events.close()
        self.session.terminate()
        self.session.communicate()
        mended = (self.machine.status().get("health") or {}).get("mended")
        self.row.mended = f"status: {mended['text']} in {mended['seconds']} s" if mended else "status: -"


def _quiet(answers: Callable[[], bool]) -> bool:
    try:
        return answers()
    except OSError:
        return False


ROWS: list[Row] = []


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    print("\nwhat was broken              what came back by itself, seconds after it could")
    for row in ROWS:
        print(row.line())


@pytest.fixture
def patient(request: pytest.FixtureRequest, machine: Driver) -> Iterator[Patient]:
    made = Patient(machine, request.node.name.removeprefix("test_").replace("_", " "))
    ROWS.append(made.row)
    try:
        yield made
    finally:
        made.close()


def engine_health(machine: Driver) -> Any:
    return (machine.status().get("health") or {}).get("parts", {}).get("engine", {}).get("state")


def test_the_guests_sshd_killed(patient: Patient) -> None:
    patient.break_(lambda: patient.machine.wherry("ssh", "killall -9 sshd sshd-session"))
    patient.engine()
    patient.exec_session()
    patient.what_was_under_way(lost=True)
    patient.fresh_events()
    assert "the connection to the machine ended" in patient.machine.status()["health"]["mended"]["text"]


def test_packets_lost(patient: Patient) -> None:
    # Undone by the guest itself, whatever becomes of this test.
    rule = "PREROUTING -p tcp --dport 22 -j DROP"
    lose = f"sleep 1; iptables -t raw -I {rule}; sleep {LONG + 1}; iptables -t raw -D {rule}; touch /run/mended"
    done = patient.machine.wherry("ssh", f"rm -f /run/mended; setsid sh -c '{lose}' >/dev/null 2>&1 </dev/null &")
    assert done.returncode == 0
    patient.machine.wait_until(lambda: engine_health(patient.machine) == "repairing", "the loss is noticed")
    # A call that comes now waits, and is answered or told.
    words = patient.machine.wherry("ssh", "true")
    assert words.returncode == 0 or b"has not answered for" in words.stderr
    patient.machine.wait_until(lambda: engine_health(patient.machine) == "ok", "it is mended")
    patient.repaired()
    patient.engine()
    patient.exec_session()
    assert patient.machine.ssh("cat /run/mended") == ""
    patient.what_was_under_way(lost=None)
    patient.fresh_events()


def test_qemu_stopped(patient: Patient) -> None:
    qemu = qemu_of(patient.machine)
    try:
        patient.break_(qemu.suspend)
        time.sleep(LONG)  # what is tried
        assert engine_health(patient.machine) == "repairing"
    finally:
        qemu.resume()
    patient.repaired()
    patient.engine()
    patient.exec_session()
    patient.what_was_under_way(lost=LONG > 30)
    patient.fresh_events()
    patient.part("clock", lambda: clock_is_right(patient.machine))


def clock_is_right(machine: Driver) -> bool:
    before = time.time()
    told = json.loads(machine.docker("info", "--format", "{{json .SystemTime}}"))
    after = time.time()
    hours, minutes, rest = told.split("T")[1].rstrip("Z").split(":")
    then = int(hours) * 3600 + int(minutes) * 60 + float(rest)
    return before % 86400 - 0.1 <= then <= after % 86400 + 0.1


def test_the_keeper_stopped(patient: Patient) -> None:
    keeper = keeper_of(patient.machine)
    try:
        patient.break_(keeper.suspend)
        time.sleep(LONG)
    finally:
        keeper.resume()
    patient.repaired()
    patient.part("status", lambda: "woke after" in patient.machine.status()["health"]["mended"]["text"], 20)
    assert patient.machine.status()["health"]["mended"]["seconds"] < 2
    patient.engine()
    patient.exec_session()
    # The guest's sshd asks too, and gives a keeper up that was silent for 15 s.
    patient.what_was_under_way(lost=None)
    patient.fresh_events()


def test_a_clock_that_is_wrong(patient: Patient) -> None:
    for wrong in ("-3600", "+7"):
        patient.machine.ssh(f"date -u -s @$(( $(date +%s) {wrong} ))")
        patient.repaired()
        patient.part(f"clock {wrong} s", lambda: clock_is_right(patient.machine), 30)
    patient.what_was_under_way(lost=False)


def test_the_keeper_killed(patient: Patient) -> None:
    keeper = keeper_of(patient.machine)
    patient.machine.ssh("echo alive >/run/alive")
    patient.break_(lambda: keeper.send_signal(signal.SIGKILL))
    keeper.wait(10)
    # Nobody listens: a docker client alone starts no keeper, and status says what does.
    with pytest.raises(OSError):
        get(patient.socket, "/_ping")
    said = patient.machine.status()
    assert "QEMU and the containers go on" in said["problem"] and said["next"] == "wherry up"
    patient.exec_session()
    patient.engine()
    assert patient.machine.ssh("cat /run/alive") == "alive\n"
    patient.what_was_under_way(lost=True)
    patient.fresh_events()


def test_qemu_killed(patient: Patient) -> None:
    patient.machine.docker("run", "-d", "--name", "lasting", "--restart", "always", "wherry.internal/hello", "sleep", "100001")
    try:
        qemu = qemu_of(patient.machine)
        patient.break_(lambda: qemu.send_signal(signal.SIGKILL))
        patient.engine()
        patient.exec_session()
        patient.part("container", lambda: patient.machine.container_state("lasting") == "running")
        patient.what_was_under_way(lost=True)
        patient.fresh_events()
        assert "started again" in patient.machine.status()["health"]["mended"]["text"]
    finally:
        patient.machine.docker("rm", "-f", "lasting")


def test_reconnects_leave_nothing_behind(machine: Driver) -> None:
    count = "ps -o args | grep -c '^sshd-session'"
    machine.wherry("ssh", "true")
    before = int(machine.ssh(count))
    for _ in range(20 if SOAK else 5):
        machine.wherry("ssh", "killall -9 sshd-session")
        machine.ssh("true")
    machine.wait_until(lambda: int(machine.ssh(count)) <= before, "the old processes are gone", 60)
    assert int(machine.ssh("ps -o args | grep -c '^/usr/lib/wherry/[v]itals'")) <= 1
