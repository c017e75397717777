"""A keeper's successor and a real QEMU without a guest; sshd is a real server, or a port that closes what it accepts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import host, identity
from launcher.config import SSH_PORTS
from launcher.errors import ConnectionLost, WherryError
from launcher.keeper import adoption, channels, launch, link, orphan, reach, stopper
from launcher.keeper.launch import Adopted
from launcher.keeper.supervisor import Supervisor
from launcher.keeper.watch import Cancelled
from launcher.qemu import qmp, sshport
from launcher.qemu.process import QemuProcess
from launcher.qemu.qmp import Qmp
from launcher.ssh.transport import Connection
from launcher.store import MachineDir
from tests.fakes import make_machine
from tests.guestserver import Guest, guest

REAL = shutil.which("qemu-system-x86_64")
TOKEN = "0123456789abcdef"
_OURS = ("qemu-exit", "link-again", "link-try", "woke")
pytestmark = pytest.mark.skipif(REAL is None, reason="no qemu-system-x86_64 here")


class Left:
    """What a killed keeper leaves: QEMU, its sockets and its lock."""

    def __init__(self, directory: MachineDir) -> None:
        self.directory = directory
        self._threads = set(threading.enumerate())  # not ours, whatever they wait for
        directory.run_dir.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            lock = host.current().lock(directory.qemu_lock_file, wait=False)
            assert lock is not None
            stack.callback(os.close, lock)
            listening = [channels.listener(path, stack) for path in (directory.qmp_socket, directory.serial_socket)]
            words = [
                word
                for name, one in zip(("qmp", "serial"), listening, strict=True)
                for word in ("-chardev", f"socket,id={name},fd={one.fileno()},server=on,wait=off")
            ]
            words = [
                "-name", f"wherry-{directory.name}-{TOKEN}", "-nodefaults", "-display", "none",
                "-machine", "isapc", "-accel", "tcg", "-m", "16", "-S",
                "-netdev", "user,id=net0,ipv6=off", *words, "-mon", "chardev=qmp,mode=control", "-serial", "chardev:serial",
            ]  # fmt: skip
            self.qemu = QemuProcess.start(
                Path(REAL or ""), words, cwd=directory.path, log=directory.qemu_log,
                pass_fds=[one.fileno() for one in listening], lock_fd=lock,
            )  # fmt: skip
        self.keepers: list[Supervisor] = []

    def ask(self, work: Any) -> Any:
        """As the keeper before did, over a connection of its own."""
        client = Qmp(channels.dial(self.directory.qmp_socket))
        try:
            client.start(lambda _name, _data: None)
            return work(client)
        finally:
            client.close()

    def take_keys(self, server: Guest) -> None:
        for name in ("id_ed25519", "id_ed25519.pub", "host_ed25519", "host_ed25519.pub"):
            shutil.copy(server.machine.path / name, self.directory.path / name)

    def next_keeper(self, **state: Any) -> Supervisor:
        keeper = Supervisor(self.directory)
        keeper.update(**{
            "status": "running", "token": TOKEN, "qemu_pid": self.qemu.pid, "qemu_stamp": self.qemu.stamp,
            "engine_version": "28.5.2", **state,
        })  # fmt: skip
        self.keepers.append(keeper)
        return keeper

    def close(self) -> None:
        for keeper in self.keepers:
            keeper.link.drop()
            if keeper.guest is not None:
                keeper.guest.close()
        self.qemu.kill()
        self.qemu.wait(60)
        # One may begin another: until none is left. Also named are those that have not begun; they cannot be joined yet.
        deadline = time.monotonic() + 30
        while left := [thread for thread in set(threading.enumerate()) - self._threads if thread.name in _OURS]:
            assert time.monotonic() < deadline, left
            for thread in left:
                if thread.is_alive():
                    thread.join(deadline - time.monotonic())
                else:
                    time.sleep(0.01)


@pytest.fixture
def left(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Left]:
    monkeypatch.setattr(link, "CALLS_WAIT", 0.3)
    monkeypatch.setattr(link, "_PAUSES", (0.01,))
    made = Left(make_machine())
    yield made
    made.close()


class Slirp:
    """Accepts, and closes as long as the guest refuses."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.refused = 0
        self._again = threading.Condition()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self._listening.accept()
                stream.close()
                with self._again:
                    self.refused += 1
                    self._again.notify_all()

    def wait_refused(self, times: int) -> None:
        with self._again:
            assert self._again.wait_for(lambda: self.refused >= times, 30)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.fixture
def slirp() -> Iterator[Slirp]:
    made = Slirp()
    yield made
    made.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Guest]:
    folder = tmp_path / "guest"
    folder.mkdir()
    with guest(folder) as made:
        yield made


def test_one_that_answers_goes_on_without_a_word(left: Left, server: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    left.take_keys(server)
    monkeypatch.setattr(adoption.engine, "version", lambda _: "28.5.2")
    keeper = left.next_keeper(ssh_port=server.port, engine_version="", paused="of before")
    assert adoption.take_over(keeper)
    keeper.is_ready()
    assert keeper.connection().alive and left.qemu.poll() is None
    assert (keeper.state.engine_version, keeper.state.paused, keeper.state.notes) == ("28.5.2", "", [])


def test_a_guest_whose_sshd_is_down_keeps_its_qemu(left: Left, slirp: Slirp, server: Guest) -> None:
    keeper = left.next_keeper(ssh_port=slirp.port)
    up = threading.Event()
    keeper.link.subscribe(lambda _: up.set())
    assert adoption.take_over(keeper)
    keeper.is_ready()
    assert left.qemu.poll() is None and keeper.monitor() is not None
    assert "has not answered its new keeper yet" in keeper.state.notes[-1]
    assert keeper.health.state("engine") == "repairing"  # being ready does not hide it
    slirp.wait_refused(3)
    # sshd is there: the link, which went on trying, finds it.
    left.take_keys(server)
    keeper.update(ssh_port=server.port)
    assert up.wait(30)
    assert keeper.connection().alive


def test_what_a_lost_state_did_not_tell_is_learned_when_the_guest_answers(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(link, "_PATIENCE", 0.3)
    port = left.ask(sshport.forward)
    monkeypatch.setattr(adoption, "_left", lambda _: None)
    beats: list[Any] = []
    keeper = left.next_keeper()
    monkeypatch.setattr(keeper.link, "beat", beats.append)
    assert adoption.take_over(keeper)
    assert port in SSH_PORTS
    assert (keeper.state.ssh_port, keeper.state.engine_version, keeper.state.qemu_pid) == (port, "", left.qemu.pid)
    monkeypatch.setattr(adoption.engine, "version", lambda _: "28.5.2")
    beats[0](None)
    assert keeper.state.engine_version == "28.5.2"


def test_one_that_is_held_is_known_by_its_port_told_and_reached_later(
    left: Left, server: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = left.ask(sshport.forward)
    monkeypatch.setattr(adoption, "_left", lambda _: None)
    keeper = left.next_keeper()
    up = threading.Event()
    keeper.link.subscribe(lambda _: up.set())

    def found_held(_monitor: Any) -> bool:
        keeper._held("this computer's disk is full")
        return True

    monkeypatch.setattr(keeper.pause, "found_held", found_held)
    assert adoption.take_over(keeper)
    keeper.is_ready()
    assert keeper.state.ssh_port == port
    with pytest.raises(WherryError, match="paused: this computer's disk is full"):
        keeper.wait_ready(1)
    assert keeper.health.to_json()["parts"]["engine"]["state"] == "failed"
    # It goes on; the one connection that is made at once does not come about.
    refused = threading.Event()

    def refuse() -> Connection:
        refused.set()
        raise ConnectionLost("not yet")

    monkeypatch.setattr(keeper.link, "_connect", refuse)
    monkeypatch.setattr(keeper.link, "_reconnect", lambda _: server.connect())
    keeper._held("")
    assert up.wait(30)
    assert not refused.is_set()  # the link tried itself


def test_a_qemu_that_was_stopped_is_left_as_it_is(left: Left, slirp: Slirp, monkeypatch: pytest.MonkeyPatch) -> None:
    left.ask(lambda client: client.execute("query-status"))
    os.kill(left.qemu.pid, signal.SIGSTOP)
    monkeypatch.setattr(launch, "_GREETS_WITHIN", 0.2)
    monkeypatch.setattr(channels, "_DIAL_SECONDS", 0.2)
    for _ in range(6):  # more than its sockets let wait
        keeper = left.next_keeper(ssh_port=slirp.port)
        before = left.directory.read_state()
        with pytest.raises(Cancelled):
            adoption.take_over(keeper)
        assert keeper.leaving and keeper._let_go() == 0
        with pytest.raises(WherryError, match=rf"QEMU \(pid {left.qemu.pid}\) gives no answer") as caught:
            keeper.wait_ready(1)
        assert f"kill -CONT {left.qemu.pid}" in (caught.value.hint or "")
        assert left.directory.read_state() == before and left.directory.qmp_socket.exists()
    assert left.qemu.poll() is None
    os.kill(left.qemu.pid, signal.SIGCONT)
    monkeypatch.setattr(launch, "_GREETS_WITHIN", 60.0)
    monkeypatch.setattr(channels, "_DIAL_SECONDS", 60.0)  # it takes those from its queue first
    assert adoption.take_over(left.next_keeper(ssh_port=slirp.port))


def test_a_queue_that_is_full_is_waited_for(tmp_path: Path) -> None:
    """QEMU takes one connection after the other, and a keeper that gave up leaves its own in there."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening, contextlib.ExitStack() as stack:
        listening.bind(str(path))
        listening.listen(0)
        stack.enter_context(channels.dial(path))
        waiting = threading.Timer(0.5, lambda: stack.enter_context(listening.accept()[0]))
        waiting.start()
        stack.enter_context(channels.dial(path))
        waiting.join()


def test_a_qemu_that_was_stopped_and_is_to_end_is_ended(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    left.ask(lambda client: client.execute("query-status"))
    os.kill(left.qemu.pid, signal.SIGSTOP)
    monkeypatch.setattr(launch, "_GREETS_WITHIN", 0.2)
    keeper = left.next_keeper()
    keeper.only_stop = True
    assert not adoption.take_over(keeper)
    assert left.qemu.wait(60) == -signal.SIGKILL


def test_without_its_sockets_the_guest_is_asked_first(left: Left, server: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    left.directory.qmp_socket.unlink()
    keeper = left.next_keeper()
    monkeypatch.setattr(keeper.link, "fresh", server.connect)
    monkeypatch.setattr(orphan, "_EVERY", 0.05)
    monkeypatch.setattr(orphan, "_POWER_OFF", ("kill", "-TERM", str(left.qemu.pid)))
    assert not adoption.take_over(keeper)
    assert len(server.commands) == 1 and left.qemu.wait(60) == 0
    assert "was powered off and started again" in keeper.state.notes[-1]


def test_one_that_cannot_be_taken_over_gets_its_power_button(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU forwards no port here, and nobody knows one."""
    pressed: list[str] = []

    def power_button(monitor: Qmp, arch: str) -> None:
        pressed.append(arch)
        monitor.execute("quit")

    monkeypatch.setattr(qmp, "power_button", power_button)
    monkeypatch.setattr(stopper, "PATIENCE", 30.0)
    keeper = left.next_keeper()
    assert not adoption.take_over(keeper)
    assert pressed == ["amd64"] and left.qemu.wait(60) == 0
    assert "does not forward a port" in keeper.state.notes[-1] and keeper.guest is None


def test_nothing_is_polled_while_a_qemu_that_was_taken_over_runs(
    left: Left, slirp: Slirp, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, looks = threading.Event(), list[bool]()
    poll, ended = Adopted.poll, identity.ended

    def looked(process: Adopted) -> int | None:
        looks.append(killed.is_set())
        return poll(process)

    def waited(pid: int, stamp: str, seconds: float | None) -> bool:
        looks.append(killed.is_set())
        return ended(pid, stamp, seconds)

    monkeypatch.setattr(Adopted, "poll", looked)
    monkeypatch.setattr(identity, "ended", waited)
    keeper = left.next_keeper(ssh_port=slirp.port)
    assert adoption.take_over(keeper)
    killed.set()
    left.qemu.kill()
    assert left.qemu.wait(60) is not None
    assert keeper.watch.wait_end(30)
    assert looks and all(looks)
