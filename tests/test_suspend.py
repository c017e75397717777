"""Saving a machine and going on: real keepers, real QEMUs, a guest of 45 bytes, and kills at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import psutil
import pytest

from launcher import control, disks, host, saved, store
from launcher.config import MIB, Shares
from launcher.errors import Damaged, NotRunning, Refused, WherryError
from launcher.keeper import identified, idle, life
from launcher.keeper.engine import SOCKET
from launcher.keeper.supervisor import Supervisor
from launcher.machine import inspect, keepers, run
from launcher.machine.create import UpOptions
from launcher.machine.stop import delete, stop
from launcher.machine.suspend import _ask, suspend
from launcher.qemu import probe, signature
from launcher.report import SilentReporter
from tests import miniguest
from tests.fakes import CONFIG, make_machine
from tests.guestserver import Guest, guest
from tests.loopback import free_port
from tests.processes import kill
from tests.tinyiso import iso_bytes

pytestmark = [
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64 here"),
    # A command that starts a keeper ends before it; this process does not.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROOT = Path(__file__).parent.parent
SOAK = os.environ.get("WHERRY_SOAK") == "1"
KILLS = 100 if SOAK else 4
QUIET = SilentReporter()


class Engine(threading.Thread):
    """Answers one request a connection."""

    def __init__(self, place: Path) -> None:
        super().__init__(daemon=True)
        self.place = place
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(place))
        self._listening.listen(16)
        self.start()

    def run(self) -> None:
        while True:
            try:
                stream, _ = self._listening.accept()
            except OSError:
                return
            with stream:
                asked = stream.recv(65536)
                body = b"[]" if b"/containers/json" in asked or b"/services" in asked else b"OK"
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n" + body)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.join(10)


class Mini:
    """One machine with the small guest."""

    def __init__(self, server: Guest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        iso = folder / "iso" / "wherry.iso"
        iso.parent.mkdir()
        iso.write_bytes(iso_bytes())
        (iso.parent / "vmlinuz").write_bytes(miniguest.kernel())
        self.rest = folder / "rest"
        self.server = server
        self.engine = Engine(folder / "engine")
        server.places[SOCKET.encode()] = self.engine.place
        self.directory = make_machine()
        self.directory.data_disk.unlink()
        disks.create(self.directory.data_disk, 64 * MIB, probe.find_img())
        config = self.directory.read_config()
        self.directory.write_config(config.changed(memory=512 * MIB, iso=miniguest.SHA, accel="tcg", shares=Shares(home=False)))
        for name in ("id_ed25519", "id_ed25519.pub", "host_ed25519", "host_ed25519.pub"):
            shutil.copy(server.machine.path / name, self.directory.path / name)
        for name, value in (("MINI_ISO", iso), ("SSHD_PORT", server.port), ("REST", self.rest)):
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(run, "KEEPER", "tests.miniguest")
        # images.restore looks for the ISO in the cache; the keeper has its own.
        monkeypatch.setattr("launcher.machine.create._have_iso", lambda *_: None)

    def up(self, **options: Any) -> run.UpResult:
        return run.up("default", UpOptions(), QUIET, **options)

    def count(self) -> int:
        """The guest's last word; waits for one more than there is."""
        log = self.directory.serial_log
        before = len(_words(log))
        deadline = time.monotonic() + 30
        while len(words := _words(log)) <= before:
            assert time.monotonic() < deadline, (inspect.status("default"), log.read_bytes()[-20:])
            time.sleep(0.01)
        return words[-1]

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(self.directory.path) and process.pid != os.getpid():
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def qemu(self) -> list[str]:
        """Its command line."""
        return next(words for one in self.processes() if "-smp" in (words := _command(one)))

    def close(self) -> None:
        self.kill_all()
        self.engine.close()

    def kill_all(self) -> None:
        while found := self.processes():  # a keeper may have started a QEMU as we looked
            kill(found)

    @property
    def names(self) -> set[str]:
        """The files that tell what the machine is."""
        kept = {"data.qcow2", "data.suspended.qcow2", "suspend.json", "suspend.zst"}
        return {path.name for path in self.directory.path.iterdir()} & kept


SUSPENDED = {"data.suspended.qcow2", "suspend.json", "suspend.zst"}
OFF = {"data.qcow2"}


def _command(process: psutil.Process) -> list[str]:
    """Its command line; none when it has ended."""
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _words(log: Path) -> list[int]:
    text = log.read_bytes() if log.exists() else b""
    return [
        int("".join(f"{ord(letter) - 97:x}" for letter in word.decode()), 16) for word in re.findall(rb"#([a-p]{4})\s", text)
    ]


@pytest.fixture
def mini(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mini]:
    (tmp_path / "guest").mkdir()
    with guest(tmp_path / "guest") as server:
        made = Mini(server, tmp_path, monkeypatch)
        try:
            yield made
        finally:
            made.close()


def test_there_and_back(mini: Mini) -> None:
    mini.up()
    before = mini.count()
    done = suspend("default", QUIET)
    assert not done.already and done.size == mini.directory.memory_file.stat().st_size
    assert mini.names == SUSPENDED and not mini.directory.qemu_runs()
    assert mini.directory.read_state().status == "suspended"
    assert mini.rest.read_text().split() == ["quiet"]
    assert suspend("default", QUIET).already
    words = len(_words(mini.directory.serial_log))
    result = mini.up()
    assert [name for name, _ in result.timeline] == ["qemu", "memory", "ssh", "ready"] and result.engine == "1.2.3"
    assert mini.count() > before
    assert min(_words(mini.directory.serial_log)[words:] or [before]) >= before  # it did not begin anew
    assert mini.names == OFF
    assert mini.rest.read_text().split() == ["quiet", "wake"]
    suspend("default", QUIET)  # and once more
    mini.up()
    assert mini.count() > before


def runs(mini: Mini) -> bool:
    """Whether it is not being saved yet; a keeper that is gone has done that already."""
    try:
        return bool(control.status(mini.directory.control_socket)["status"] == "running")
    except NotRunning:
        return False


def test_a_command_that_comes_meanwhile_resumes_it(mini: Mini) -> None:
    """`up` while it is saved waits for the end of that, and then resumes it."""
    mini.up()
    saving = threading.Thread(target=suspend, args=("default", QUIET))
    saving.start()
    while saving.is_alive() and runs(mini):
        time.sleep(0.005)
    result = mini.up()
    saving.join()
    assert mini.names == OFF and mini.directory.read_state().status == "running" and result.engine == "1.2.3"


def test_what_it_refuses(mini: Mini) -> None:
    with pytest.raises(NotRunning):
        suspend("default", QUIET)
    mini.up()
    mini.directory.write_config(mini.directory.read_config().changed(memory=1024 * MIB))  # for the next start
    suspend("default", QUIET)
    assert not stop("default", False, QUIET) and mini.names == SUSPENDED
    for options in (UpOptions(memory=512 * MIB), UpOptions(cpus=2)):
        with pytest.raises(Refused, match="is suspended"):
            run.up("default", options, QUIET)
    with pytest.raises(Refused, match="is suspended"):
        run.restart("default", True, QUIET)
    mini.up()  # with the memory that it had
    assert "512" in mini.qemu() and "1024" not in mini.qemu()
    stop("default", True, QUIET)
    mini.up()
    assert "1024" in mini.qemu()


def refused(mini: Mini, words: str) -> None:
    """It stays suspended, and is told why."""
    with pytest.raises(WherryError, match=words) as told:
        mini.up()
    assert "--cold" in (told.value.hint or "")
    keepers.wait_gone(mini.directory)
    assert mini.names >= {"data.suspended.qcow2"} and not (mini.directory.path / "data.qcow2").exists()
    assert not mini.directory.qemu_runs()


def test_its_memory_belongs_to_one_disk_qemu_iso_and_command(mini: Mini) -> None:
    mini.up()
    suspend("default", QUIET)
    told = json.loads(mini.directory.suspend_file.read_text())
    os.utime(mini.directory.suspended_disk)
    refused(mini, "data.suspended.qcow2 was changed")
    os.utime(mini.directory.suspended_disk, ns=(0, told["disk"][1]))
    for key, value, words in (
        ("qemu_version", "6.0.0", r"was saved by QEMU 6\.0\.0, and this computer has [1-9]"),
        ("iso", "b" * 64, "belongs to the ISO bbbb"),
        ("cpu", "another", "another processor"),
        ("command", [*told["command"][:-2], "-device", "foo"], "foo then"),
        ("memory", told["memory"] + 1, "suspend.zst is damaged"),
        ("cpus", "many", "nobody can tell what"),
    ):
        mini.directory.suspend_file.write_text(json.dumps({**told, key: value}))
        refused(mini, words)
    mini.directory.suspend_file.unlink()
    refused(mini, "suspend.json is lost")
    mini.directory.suspend_file.write_text(json.dumps(told))
    data = bytearray(mini.directory.memory_file.read_bytes())
    data[len(data) // 2] ^= 1
    mini.directory.memory_file.write_bytes(data)
    refused(mini, "is damaged")
    data[len(data) // 2] ^= 1
    mini.directory.memory_file.write_bytes(data)
    mini.up()


def test_given_up(mini: Mini) -> None:
    mini.up()
    suspend("default", QUIET)
    words = len(_words(mini.directory.serial_log))
    mini.up(cold=True)
    mini.count()
    assert _words(mini.directory.serial_log)[words] == 1  # from its beginning
    assert mini.names == OFF


@pytest.mark.parametrize("last", ["suspend.json", "data.suspended.qcow2"])
def test_what_a_power_cut_leaves(mini: Mini, last: str) -> None:
    """Between the last two steps of saving it is suspended; before them it is off."""
    mini.up()
    suspend("default", QUIET)
    os.rename(mini.directory.suspended_disk, mini.directory.data_disk)
    if last == "suspend.json":
        saved.settle(mini.directory)
        assert mini.names == SUSPENDED
        return
    mini.directory.suspend_file.unlink()
    saved.settle(mini.directory)
    assert mini.names == OFF


def test_two_disks_are_never_one(mini: Mini) -> None:
    mini.up()
    suspend("default", QUIET)
    mini.directory.data_disk.write_bytes(b"another")
    with pytest.raises(Damaged, match="has two disks"):
        mini.up()
    keepers.wait_gone(mini.directory)
    assert inspect.status("default")["status"] == "broken"
    assert mini.names == {*SUSPENDED, "data.qcow2"} and mini.directory.data_disk.read_bytes() == b"another"


def test_kills_while_it_is_saved(mini: Mini) -> None:
    """Of the keeper, or of all: it runs on, is suspended, or off; and the next `up` works."""
    chance = random.Random(1)
    seen = set()
    mini.up()
    for number in range(KILLS):
        mini.count()
        victims = [one for one in mini.processes() if number % 2 or "tests.miniguest" in _command(one)]
        # What `suspend` asks, of this keeper alone: it would start another in place of one that was killed.
        saving = threading.Thread(target=_try, args=(lambda: _ask(mini.directory, QUIET),))
        saving.start()
        time.sleep(chance.uniform(0, 0.6))  # what is tried
        for victim in victims:
            with contextlib.suppress(psutil.Error):  # it has ended
                victim.kill()
        saving.join()
        left, said = frozenset(mini.names), _words(mini.directory.serial_log)
        mini.up()
        assert mini.names == OFF
        mini.count()
        new = _words(mini.directory.serial_log)[len(said) :]
        on = min(new) >= said[-1]
        seen.add((left >= SUSPENDED, on))
        if left >= SUSPENDED and "data.qcow2" not in left:
            assert on, "it was suspended, and has begun anew"
        if not number % 2:
            assert on, "only its keeper was killed"
    assert len(seen) > 1 or not SOAK, seen


def test_kills_while_it_is_resumed(mini: Mini) -> None:
    chance = random.Random(2)
    mini.up()
    for number in range(KILLS):
        began = mini.count()
        suspend("default", QUIET)
        words = len(_words(mini.directory.serial_log))
        resuming = threading.Thread(target=_try, args=(mini.up,))
        resuming.start()
        time.sleep(chance.uniform(0, 1.2))  # what is tried
        for victim in mini.processes():
            if number % 2 or "tests.miniguest" in _command(victim):
                with contextlib.suppress(psutil.Error):  # it has ended
                    victim.kill()
        resuming.join()
        suspended = mini.names == SUSPENDED
        assert suspended or "data.qcow2" in mini.names
        mini.up()
        mini.count()
        new = _words(mini.directory.serial_log)[words:]
        assert mini.names == OFF
        assert not suspended or min(new) >= began, "it was suspended, and has begun anew"
        assert number % 2 or min(new) >= began, "only its keeper was killed"


def _try(work: Any) -> None:
    try:
        work()
    except WherryError:
        pass


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", place]).returncode != 0:
        pytest.skip("a file system can be mounted by root only")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_no_room_for_the_memory(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("WHERRY_HOME", str(small / "home"))
    (tmp_path / "guest").mkdir()
    with guest(tmp_path / "guest") as server:
        mini = Mini(server, tmp_path, monkeypatch)
        try:
            mini.up()
            filler = small / "filler"
            filler.touch()
            free = shutil.disk_usage(small).free
            with filler.open("r+b") as file:
                file.write(b"x" * (free - (64 << 10)))  # less than the memory takes
            before = mini.count()
            with pytest.raises(WherryError, match="there is no space left"):
                suspend("default", QUIET)
            assert mini.count() > before and mini.names == OFF
            assert mini.rest.read_text().split() == ["quiet", "wake"]
            assert not [path for path in mini.directory.path.iterdir() if path.name.startswith(".suspend")]
            filler.unlink()
            suspend("default", QUIET)
            assert mini.names == SUSPENDED
            mini.up()
            assert mini.count() > before
        finally:
            mini.close()


def test_a_stop_that_comes_meanwhile_wins(mini: Mini) -> None:
    mini.up()
    saving = threading.Thread(target=_try, args=(lambda: suspend("default", QUIET),))
    saving.start()
    while saving.is_alive() and runs(mini):
        time.sleep(0.002)
    stop("default", True, QUIET)
    saving.join()
    assert mini.names in (OFF, SUSPENDED) and not mini.directory.qemu_runs()


@pytest.fixture
def sleepy(mini: Mini, monkeypatch: pytest.MonkeyPatch) -> Mini:
    """One that sleeps after a quiet of 3 seconds, which is looked for every second."""
    monkeypatch.setenv("MINUTE", "3")
    mini.directory.write_config(mini.directory.read_config().changed(idle_suspend=1))
    return mini


def asleep(mini: Mini) -> bool:
    return bool(control.status(mini.directory.control_socket)["status"] == "suspended")


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask_engine(mini: Mini) -> bytes:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(60)
        stream.connect(str(mini.directory.engine_socket))
        stream.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := stream.recv(65536):
            answer += data
        return answer


def test_it_sleeps_by_itself_and_the_first_call_succeeds(sleepy: Mini) -> None:
    sleepy.up()
    keeper = control.status(sleepy.directory.control_socket)["keeper"]["pid"]
    before = sleepy.count()
    words = len(_words(sleepy.directory.serial_log))
    wait_until(lambda: asleep(sleepy))
    assert sleepy.names == SUSPENDED and not sleepy.directory.qemu_runs()
    assert inspect.status("default")["status"] == "suspended"
    assert suspend("default", QUIET).already
    # By the engine's socket, several at once.
    with ThreadPoolExecutor(4) as crowd:
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in crowd.map(lambda _: ask_engine(sleepy), range(4)))
    # By the command line.
    wait_until(lambda: asleep(sleepy))
    assert sleepy.up().engine == "1.2.3"
    # By a port.
    wait_until(lambda: asleep(sleepy))
    port = free_port()
    control.ask(sleepy.directory.control_socket, "port", action="add", forward=f"{port}:80")
    assert asleep(sleepy)
    with socket.create_connection(("127.0.0.1", port), timeout=60):
        wait_until(lambda: not asleep(sleepy))
    assert control.status(sleepy.directory.control_socket)["keeper"]["pid"] == keeper
    assert min(_words(sleepy.directory.serial_log)[words:]) > before


def test_where_memory_cannot_be_saved_no_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved.idle_minutes(CONFIG.changed(idle_suspend=9), "tcg") == 9
    monkeypatch.setattr(host.current(), "ENDPOINT", "stdio")
    assert saved.idle_minutes(CONFIG.changed(idle_suspend=9), "tcg") == 0


def test_who_comes_at_the_last_moment_is_not_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was decided that the machine sleeps, and before who comes would wake it."""
    told = [(0, 7)]
    wanted: list[bool] = []
    watcher = idle.Idle(lambda: 1, lambda: True, lambda: wanted.append(True))
    watcher.count(lambda: told[-1])
    monkeypatch.setattr(idle, "_MINUTE", 0.0)
    watcher.look()
    watcher.look()
    assert wanted == [True] and not watcher.used()
    told.append((1, 8))
    assert watcher.used()
    keeper = MagicMock(idle_wanted=True)
    keeper.watch.ended = False
    keeper.parts.used = watcher.used
    turns = iter((True, False))
    monkeypatch.setattr(life.revival, "watch_over", lambda _: next(turns))
    monkeypatch.setattr(life.suspender, "suspend", lambda _: pytest.fail("it was disturbed"))
    assert life.live(keeper) is False
    keeper.nap.end.assert_called_once()
    keeper.is_ready.assert_called_once()


def test_a_call_that_comes_while_it_lies_down_is_answered(sleepy: Mini) -> None:
    """And the machine is the same as before, all the time."""
    rest = Path(os.environ["REST"])
    slow = Path(f"{rest}.slow")
    slow.touch()
    sleepy.up()
    pid = sleepy.directory.read_state().qemu_pid
    wait_until(lambda: rest.exists() and "quiet" in rest.read_text(encoding="utf-8"))
    assert ask_engine(sleepy).startswith(b"HTTP/1.1 200")
    slow.unlink()
    assert sleepy.directory.read_state().qemu_pid == pid and sleepy.names == OFF
    wait_until(lambda: asleep(sleepy))


def test_it_does_not_sleep_while_somebodys_own_ssh_client_is_there(sleepy: Mini) -> None:
    client = Path(os.environ["REST"]).with_suffix(".client")
    client.touch()
    sleepy.up()
    wait_until(lambda: "not suspended: somebody is connected" in sleepy.directory.keeper_log.read_text(encoding="utf-8"))
    assert sleepy.directory.qemu_runs()
    client.unlink()
    wait_until(lambda: asleep(sleepy))


def test_one_that_sleeps_is_stopped_started_anew_and_deleted(sleepy: Mini) -> None:
    sleepy.up()
    wait_until(lambda: asleep(sleepy))
    assert not stop("default", False, QUIET)  # `wherry stop` says what it is
    assert sleepy.names == SUSPENDED and not sleepy.directory.keeper_lives()
    sleepy.up()
    wait_until(lambda: asleep(sleepy))
    words = len(_words(sleepy.directory.serial_log))
    sleepy.up(cold=True)
    wait_until(lambda: len(_words(sleepy.directory.serial_log)) > words)
    assert _words(sleepy.directory.serial_log)[words] == 1
    wait_until(lambda: asleep(sleepy))
    delete("default", False, QUIET)
    assert not sleepy.directory.exists()


def test_a_keeper_of_one_that_sleeps_is_killed(sleepy: Mini, monkeypatch: pytest.MonkeyPatch) -> None:
    sleepy.up()
    before = sleepy.count()
    wait_until(lambda: asleep(sleepy))
    sleepy.kill_all()
    assert sleepy.names == SUSPENDED
    monkeypatch.setenv("MINUTE", "60")  # not again before it has counted
    sleepy.up()
    assert sleepy.count() > before


class Looked:
    """An `Idle` whose uses are ours."""

    def __init__(self) -> None:
        self.asked = 0
        self.under_way, self.count, self.minutes = 0, 0, 1
        self.idle = idle.Idle(lambda: self.minutes, lambda: True, self._suspend)
        self.idle.count(lambda: (self.under_way, self.count))
        self.idle.look()

    def _suspend(self) -> None:
        self.asked += 1

    def after(self, seconds: float) -> int:
        self.idle._since -= seconds
        self.idle.look()
        return self.asked


def test_uses_keep_it_awake() -> None:
    """Also those that came and went between two looks."""
    looked = Looked()
    looked.count += 1
    assert looked.after(61) == 0
    looked.under_way = 1
    assert looked.after(61) == 0
    looked.under_way, looked.minutes = 0, 0
    assert looked.after(61) == 0
    looked.minutes = 3
    assert looked.after(61) == 0
    assert looked.after(61) == 1
    assert looked.after(61) == 1  # it did not come to that: not before as long again


def test_a_description_that_is_damaged(home: Path) -> None:
    directory = make_machine()
    for text in ("", "[]", '{"version": 1}', '{"version": 1, "id": 3}', "{" * 100_000):
        directory.suspend_file.write_text(text)
        with pytest.raises(Damaged):
            saved.read(directory)
    directory.suspend_file.write_text('{"version": 2, "wherry": "99.0"}')
    with pytest.raises(Refused, match="made by wherry 99.0"):
        saved.read(directory)


def test_the_command_line_asks_before_it_gives_a_memory_up(home: Path, wherry: Callable[..., Any]) -> None:
    directory = make_machine()
    said = wherry("suspend")
    assert said.code == 3 and "is not running" in said.err
    os.rename(directory.data_disk, directory.suspended_disk)
    said = wherry("up", "--cold")
    assert said.code == 6 and "nobody to ask" in said.err and "--yes" in said.err
    said = wherry("status")
    assert said.code == 1 and "suspend.json is lost" in said.out and "--cold" in said.out
    said = wherry("repair")
    assert said.code == 1 and "wherry up --cold" in said.out
    assert directory.suspended_disk.exists()
    said = wherry("repair", "--yes")
    assert "was given up" in said.out and directory.data_disk.exists() and not directory.suspended_disk.exists()


def test_a_suspended_machine_in_lists_and_when_deleted(home: Path, wherry: Callable[..., Any]) -> None:
    directory = make_machine()
    os.rename(directory.data_disk, directory.suspended_disk)
    directory.memory_file.write_bytes(b"x" * 1000)
    saved.write(
        directory,
        saved.Saved(
            id="a", iso="b", qemu_version="d", accel="tcg", cpu="", cpus=1, ram=1, command=[],
            disk=saved.stamp(directory, suspended=True), memory=1000, at=time.time(),
        ),
    )  # fmt: skip
    said = wherry("status")
    assert said.code == 3 and "suspended" in said.out and "wherry up resumes it" in said.out
    assert "suspended" in wherry("list").out
    said = wherry("stop")
    assert said.code == 0 and "is suspended" in said.err
    said = wherry("delete")
    assert said.code == 6 and "memory    of the suspended machine" in said.err
    assert store.isos_needed(directory) >= {"b"}
    assert wherry("delete", "--yes").code == 0 and not directory.exists()


def test_where_it_cannot_be_saved(home: Path) -> None:
    keeper = Supervisor(make_machine())
    assert list(identified._hindrances(keeper)) == []
    keeper.update(accel="whpx,kernel-irqchip=off")
    assert "Windows Hypervisor Platform" in next(identified._hindrances(keeper))
    with pytest.raises(Refused, match="cannot be suspended") as told:
        identified.describe(keeper)
    assert told.value.hint == "wherry stop default"
    keeper.update(accel="kvm", paused="this computer's disk is full")
    assert list(identified._hindrances(keeper)) == ["it is held, since this computer's disk is full"]
    keeper.update(paused="")
    keeper.parts.hindrances.append(lambda: "another part says so")
    assert list(identified._hindrances(keeper)) == ["another part says so"]


def test_what_counts_of_a_command_line() -> None:
    words = [
        "-name",
        "wherry-a-1",
        "-m",
        "2048",
        "-smp",
        "2",
        "-kernel",
        "/a,,b/k",
        "-blockdev",
        "driver=raw,node-name=root,file=iso,size=1",
    ]
    disk = ["-blockdev", "driver=file,node-name=data-file,filename=data.qcow2,cache.direct=off"]
    same = ["-blockdev", "driver=file,node-name=data-file,filename=/x,,y/data.suspended.qcow2,cache.direct=off"]
    saved_words = signature.of([*words, *disk, "-chardev", "socket,id=qmp,fd=3,server=on"])
    now = signature.of([*words, *same, "-chardev", "socket,id=qmp,fd=17,server=on", "-S", "-incoming", "defer"])
    assert saved_words == now and not signature.difference(saved_words, now)
    assert "driver=raw,node-name=root,file=iso,size=1" in now
    assert signature.hardware(words) == (2, 2048)
    other = [*now[:-1], "more"]
    assert signature.difference(now, other) == "socket,id=qmp,fd=,server=on then, more now"
    assert signature.difference(["-a", "-b"], ["-b", "-a"]) == "the same words in another order"


def test_a_guest_that_does_not_come_to_rest_is_woken(mini: Mini) -> None:
    mini.up()
    fails = mini.rest.with_name(f"{mini.rest.name}.fails")
    fails.touch()
    with pytest.raises(WherryError, match="the guest cannot quiet"):
        suspend("default", QUIET)
    assert mini.rest.read_text().split() == ["quiet", "wake"] and mini.names == OFF
    mini.count()
    fails.unlink()
    suspend("default", QUIET)
    assert mini.names == SUSPENDED
