"""A QEMU that cannot be taken over is ended gently: asked over SSH, given time while it answers, by force only in silence."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher import host
from launcher.errors import ConnectionLost
from launcher.keeper import adoption, orphan
from launcher.keeper.supervisor import Supervisor
from launcher.ssh.transport import Connection
from tests.fakes import make_machine
from tests.guestserver import Guest, guest


class Qemu:
    """A process that stands for one; never a power off of this computer."""

    def __init__(self) -> None:
        self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        self.pid, self.stamp = self.child.pid, ""
        self.killed = False

    def poll(self) -> int | None:
        return self.child.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        self.killed = True
        self.child.kill()

    def argv(self, seconds: float) -> tuple[str, ...]:
        return ("sh", "-c", f"(sleep {seconds}; kill -TERM {self.pid}) >/dev/null 2>&1 &")


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Qemu]:
    made = Qemu()
    monkeypatch.setattr(orphan, "_POWER_OFF", ("false",))
    monkeypatch.setattr(orphan, "_EVERY", 0.05)
    yield made
    made.child.kill()
    made.child.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Guest]:
    with guest(tmp_path) as made:
        yield made


def test_it_gets_its_time_while_it_answers(qemu: Qemu, server: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphan, "SILENT", 3.0)
    monkeypatch.setattr(orphan, "_POWER_OFF", qemu.argv(6.0))
    began = time.monotonic()
    assert orphan.end(qemu, server.connect)
    assert time.monotonic() - began > 5 and not qemu.killed
    assert len(server.commands) == 1


def test_force_comes_after_silence(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphan, "SILENT", 0.3)

    def nobody() -> Connection:
        raise ConnectionLost("nobody there")

    assert not orphan.end(qemu, nobody)
    assert qemu.killed


def test_one_that_refuses_is_asked_again(qemu: Qemu, server: Guest) -> None:
    def end() -> None:
        try:
            server.wait(lambda: len(server.commands) > 1)
        finally:
            qemu.child.kill()  # in any case: it is waited for

    ending = threading.Thread(target=end)
    ending.start()
    assert orphan.end(qemu, server.connect)
    ending.join()
    assert len(server.commands) > 1


def test_a_keeper_that_cannot_take_over_powers_off_and_starts_anew(
    qemu: Qemu, server: Guest, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_machine()
    keeper = Supervisor(directory)
    keeper.update(status="running", token="t" * 16, qemu_pid=qemu.pid, ssh_port=server.port)
    found = adoption.Found(qemu.pid, "stamp", "t" * 16, ())
    monkeypatch.setattr(adoption, "_find", lambda *_: found)
    monkeypatch.setattr(adoption, "Adopted", lambda _: qemu)
    monkeypatch.setattr(keeper.link, "fresh", server.connect)
    monkeypatch.setattr(orphan, "_POWER_OFF", qemu.argv(0))
    piped = SimpleNamespace(**{**vars(host.current()), "ENDPOINT": "stdio"})  # this system, with Windows' way to reach QEMU
    monkeypatch.setattr(host, "current", lambda: piped)
    assert not keeper.may_leave
    assert not adoption.take_over(keeper)
    assert qemu.child.poll() is not None and not qemu.killed
    assert keeper.guest is None and keeper.state.status == "starting"
    assert "containers were restarted" in keeper.state.notes[-1]
    assert replace(keeper.state, notes=[], restarts={}).qemu_pid == 0
