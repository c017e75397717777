"""The control server over a supervisor that has no QEMU: who asks what, and what an answer looks like when things end."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import control, host, readiness, seed, store
from launcher.config import GIB, MachineConfig
from launcher.errors import NoProgress, NotRunning, Refused, Usage, WherryError
from launcher.host.streams import Listening, Stream
from launcher.keeper import starter, told
from launcher.keeper.server import Server
from launcher.keeper.supervisor import Supervisor
from launcher.keeper.watch import Cancelled, Watch
from launcher.machine import inspect
from launcher.state import State
from launcher.store import MachineDir
from tests.systems import not_on_windows


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MachineDir:
    monkeypatch.setenv("WHERRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return store.create("default", MachineConfig(arch="amd64", cpus=1, memory=GIB, iso="a" * 64), lambda _: None)


@pytest.fixture
def keeper(directory: MachineDir) -> Supervisor:
    return Supervisor(directory)


@pytest.fixture
def server(keeper: Supervisor) -> Iterator[Server]:
    serving = Server(keeper)
    serving.start()
    yield serving
    keeper.journal.add({"event": "stopped", "forced": False})
    serving.close()


def ask(keeper: Supervisor, verb: str, **arguments: Any) -> Any:
    return control.ask(keeper.directory.control_socket, verb, **arguments)


class Shared:
    """Shared folders, of which one comes with machine.toml."""

    def __init__(self) -> None:
        self.ids = ["home"]

    def listing(self, *, count: bool = False) -> list[dict[str, Any]]:
        return [{"id": name, "counted": count} for name in self.ids]

    def reload(self) -> None:
        self.ids.append("added")


def test_shares_are_told_and_reloaded(keeper: Supervisor) -> None:
    serving = Server(keeper, shares=Shared())
    serving.start()
    try:
        assert ask(keeper, "status")["keeper"]["shares"] == [{"id": "home", "counted": False}]
        assert ask(keeper, "shares") == {"shares": [{"id": "home", "counted": True}]}
        keeper.update(status="running")
        keeper.journal.add({"event": "ready", "data": {}})
        assert [share["id"] for share in ask(keeper, "shares", reload=True)["shares"]] == ["home", "added"]
    finally:
        keeper.journal.add({"event": "stopped", "forced": False})
        serving.close()


def test_looks_are_no_uses(keeper: Supervisor) -> None:
    """What `status` and `list` ask, however often, keeps no machine from being suspended for want of use."""
    serving = Server(keeper, shares=Shared())
    serving.start()
    try:
        keeper.update(status="running")
        keeper.journal.add({"event": "ready", "data": {}})
        for verb in ("status", "shares", "watch"):
            ask(keeper, verb)
        assert serving.uses() == (0, 0)
        ask(keeper, "shares", reload=True)
        assert serving.uses()[1] == 1
    finally:
        keeper.journal.add({"event": "stopped", "forced": False})
        serving.close()


def test_a_machine_whose_disk_is_worked_on_is_not_suspended(keeper: Supervisor) -> None:
    """QEMU would save it as it is with the copy under way, which the next QEMU does not go on with."""
    serving = Server(keeper)
    serving.start()
    begun, done = threading.Event(), threading.Event()

    def work(*_: Any) -> dict[str, Any]:
        begun.set()
        done.wait(30)
        return {}

    serving.storage.do = work  # type: ignore[method-assign]
    keeper.update(status="running")
    keeper.journal.add({"event": "ready", "data": {}})
    thread = threading.Thread(target=lambda: ask(keeper, "disk", action="reclaim"))
    try:
        assert serving.hindrance() == ""
        thread.start()
        assert begun.wait(30)
        assert "works on its disk" in serving.hindrance()
        done.set()
        thread.join(30)
        assert serving.hindrance() == ""
    finally:
        done.set()
        keeper.journal.add({"event": "stopped", "forced": False})
        serving.close()


@pytest.mark.usefixtures("server")
def test_status_is_the_state(keeper: Supervisor) -> None:
    keeper.update(status="running", ssh_port=4)
    answer = ask(keeper, "status")
    assert (answer["status"], answer["ssh_port"]) == ("running", 4)
    assert keeper.directory.read_state().ssh_port == 4


def test_who_saw_a_container_end_waits_until_it_is_known_why(keeper: Supervisor) -> None:
    asked: list[dict[str, Any]] = []

    def oom(**words: float) -> list[dict[str, Any]]:
        asked.append(words)
        return [{"container": "web"}]

    serving = Server(keeper, oom=oom)
    serving.start()
    try:
        for since in (None, 12.5):
            assert control.status(keeper.directory.control_socket, oom_since=since)["keeper"]["oom"] == [{"container": "web"}]
        assert asked == [{}, {"since": 12.5, "within": 2.0}]
    finally:
        keeper.journal.add({"event": "stopped", "forced": False})
        serving.close()


@pytest.mark.parametrize(("only_stop", "said"), [(False, "starting"), (True, "stopping")])
def test_a_keeper_that_has_just_begun_is_no_stopped_one(directory: MachineDir, only_stop: bool, said: str) -> None:
    # Who heard "stopped" waited for the end of a keeper that was about to start the machine.
    assert Supervisor(directory, only_stop=only_stop).status == said


@pytest.mark.usefixtures("server")
def test_who_watches_late_hears_everything(keeper: Supervisor) -> None:
    keeper.journal.add({"event": "stage", "name": "kernel", "seconds": 1.0})
    keeper.journal.add({"event": "ready", "data": {"seconds": 2.0}})
    framed = control.request(keeper.directory.control_socket, "watch")
    events = list(control.events(framed))
    framed.close()
    assert events[0]["name"] == "kernel"
    assert events[1]["data"] == {"seconds": 2.0}


@pytest.mark.usefixtures("server")
def test_a_failed_start_is_raised_at_every_watcher(keeper: Supervisor) -> None:
    keeper.journal.add({"event": "failed", "error": NoProgress("no kernel", hint="look").to_json()})
    for _ in range(2):
        with pytest.raises(NoProgress, match="no kernel"):
            ask(keeper, "watch")
    with pytest.raises(NoProgress, match="no kernel"):
        keeper.wait_ready()


def test_a_stop_is_answered_when_it_is_done(keeper: Supervisor, server: Server) -> None:
    asked = [control.request(keeper.directory.control_socket, "stop") for _ in range(3)]
    # What the main thread of the keeper does when it is asked.
    keeper.watch.wait_end_or_cancel()
    keeper.journal.add({"event": "stop", "step": "begin", "seconds": 1.0})
    streams = [control.events(framed) for framed in asked]
    assert [next(stream)["step"] for stream in streams] == ["begin"] * 3
    keeper.journal.add({"event": "stopped", "forced": False})
    server.close()
    assert [next(stream)["data"] for stream in streams] == [{"forced": False}] * 3
    for framed in asked:
        framed.close()


@pytest.mark.usefixtures("server")
def test_a_command_for_a_machine_that_stops_is_told(keeper: Supervisor) -> None:
    keeper.update(status="stopping")
    keeper.journal.add({"event": "stop", "step": "asked", "seconds": 0.0})
    with pytest.raises(NotRunning, match="stopping"):
        ask(keeper, "exec", argv=["true"])


@pytest.mark.usefixtures("server")
def test_words_that_nobody_knows(keeper: Supervisor) -> None:
    with pytest.raises(Usage, match="'dance'"):
        ask(keeper, "dance")
    keeper.update(status="running")
    keeper.journal.add({"event": "ready", "data": {}})
    with pytest.raises(Usage, match="method"):
        ask(keeper, "engine", method="GET", path="no-slash")


@pytest.mark.usefixtures("server")
def test_rubbish_ends_one_connection_and_no_more(keeper: Supervisor) -> None:
    for rubbish in (b"", b"GET / HTTP/1.1\r\n\r\n", b"J\x00\x00\x00\x02{]"):
        with contextlib.closing(host.current().endpoints().connect(keeper.directory.control_socket, None)) as stream:
            stream.sendall(rubbish)
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(4096):
                pass
    assert ask(keeper, "status")["status"] == "starting"


@not_on_windows("modes; test_pipes has whose a pipe is")
def test_the_socket_is_closed_to_others_and_goes(keeper: Supervisor, server: Server) -> None:
    path = keeper.directory.control_socket
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    server.close()
    assert not path.exists()
    with pytest.raises(NotRunning):
        control.connect(path)


@not_on_windows("the names of pipes are short")
def test_a_path_too_long_for_a_socket_is_said(keeper: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(WherryError, match="too long"):
        Server(keeper).start()


def test_a_start_without_a_data_disk_fails_and_says_so(keeper: Supervisor) -> None:
    assert keeper.run() == 6
    state = keeper.directory.read_state()
    assert state.status == "failed"
    assert "data.qcow2 is gone" in state.last_error["message"] and "repair --new-disk default" in state.last_error["hint"]
    assert not keeper.directory.data_disk.exists()
    with pytest.raises(WherryError, match="is gone"):
        keeper.wait_ready()


def test_a_resumed_machine_is_ready_for_who_waits_when_its_ports_are_back(keeper: Supervisor) -> None:
    keeper.parts.urgent_done.clear()
    keeper.journal.add({"event": "ready", "data": {"seconds": 1.0}})
    heard: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: heard.append(told.start(keeper, heard.append)))
    waiting.start()
    waiting.join(0.2)
    assert not heard
    keeper.parts.urgent_done.set()
    waiting.join(30)
    assert heard == [{"seconds": 1.0}]


def test_who_hears_of_a_failed_start_finds_a_keeper_that_ends(keeper: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said "starting" at that moment: `up` did not wait for its end, and the next command was refused by what still ran."""
    add, then = keeper.journal.add, []

    def seen(event: dict[str, Any]) -> None:
        then.append((event["event"], keeper.status, keeper.directory.read_state().status))
        add(event)

    monkeypatch.setattr(keeper.journal, "add", seen)
    assert keeper.run() == 6
    assert ("failed", "stopping", "stopping") in then and keeper.directory.read_state().status == "failed"


@pytest.mark.parametrize(("action", "kept"), [(seed.READ_ONLY, True), (seed.USE, False), (seed.REPAIR, False)])
def test_a_look_at_a_damaged_disk_does_not_forget_the_damage(directory: MachineDir, action: str, kept: bool) -> None:
    error = {"message": f"{readiness.DAMAGED_WORDS}: so"}
    directory.write_state(State(status="failed", last_error=error))
    keeper = Supervisor(directory, disk_action=action)
    keeper.update(status="running")
    keeper._ended("stopped", {})
    assert directory.read_state().last_error == (error if kept else {})


def take(listening: Listening, taken: list[Stream]) -> None:
    """Connections, and nothing of what comes over them."""
    with contextlib.suppress(OSError):
        while True:
            taken.append(listening.accept())


def test_a_keeper_that_hangs_does_not_hang_every_command(directory: MachineDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_ANSWERS_WITHIN", 0.05)
    directory.data_disk.touch()
    with contextlib.closing(host.current().endpoints().listen(directory.control_socket, 1)) as deaf:
        taken: list[Stream] = []
        taking = threading.Thread(target=take, args=(deaf, taken))
        taking.start()
        with pytest.raises(NoProgress, match="no answer"):
            control.status(directory.control_socket)
        found = inspect.status("default")
    taking.join()
    for stream in taken:
        stream.close()
    assert found["status"] == "broken"
    assert "no answer" in found["problem"]


@pytest.mark.usefixtures("server")
def test_a_stop_that_comes_before_qemu_is_there_is_not_lost(keeper: Supervisor) -> None:
    keeper.request_stop(force=False)
    keeper.watch = Watch(keeper.on_message)  # the start put a new one in the place of the one that was told
    with pytest.raises(Cancelled):
        starter._boot(keeper, None, None, "tcg", (), None)  # type: ignore[arg-type]  # it must not come as far as using them
    assert keeper.guest is None


@not_on_windows("no keeper takes over the QEMU of another")
def test_a_keeper_lets_go_and_leaves_the_machine_as_it_is(keeper: Supervisor, server: Server) -> None:
    keeper.update(status="running", qemu_pid=7, token="t")
    assert control.handover(keeper.directory.control_socket) == {"released": True, "sessions": 0}
    keeper.watch.wait_end_or_cancel()  # where its main thread waits
    # From now on it begins nothing that it could not end.
    with pytest.raises(NotRunning, match="being replaced"):
        ask(keeper, "stop")
    assert control.handover(keeper.directory.control_socket)["released"] is False
    assert not keeper.stop_wanted
    left = keeper.directory.read_state()
    assert (left.status, left.qemu_pid, left.token) == ("running", 7, "t")


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("status", ["starting", "stopping", "stopped", "failed"])
def test_a_keeper_lets_go_of_a_running_machine_only(keeper: Supervisor, status: str) -> None:
    keeper.update(status=status)
    assert control.handover(keeper.directory.control_socket)["released"] is False


@not_on_windows("no keeper takes over the QEMU of another")
@pytest.mark.usefixtures("server")
def test_a_handover_cuts_no_session(keeper: Supervisor) -> None:
    keeper.update(status="running")
    # An exec waits here for a start that is not told to be over; the reader of a session is the same thread.
    session = control.request(keeper.directory.control_socket, "exec", argv=["true"])
    while not control.status(keeper.directory.control_socket)["keeper"]["sessions"]:
        pass
    assert control.handover(keeper.directory.control_socket) == {"released": False, "sessions": 1}
    keeper.journal.add({"event": "failed", "error": NoProgress("over").to_json()})
    with pytest.raises(NoProgress, match="over"):
        list(control.events(session))
    session.close()
    while control.status(keeper.directory.control_socket)["keeper"]["sessions"]:
        pass
    assert control.handover(keeper.directory.control_socket)["released"] is True


@pytest.mark.usefixtures("server")
def test_only_ageless_words_are_answered_in_another_protocol(keeper: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    real = control.check_request
    monkeypatch.setattr(control, "check_request", lambda value: real({**value, "protocol": 99}))
    assert control.status(keeper.directory.control_socket)["keeper"]["protocol"] == control.PROTOCOL
    assert control.handover(keeper.directory.control_socket)["released"] is False
    with pytest.raises(Refused, match="speaks 99"):
        ask(keeper, "stop")


def test_a_keeper_does_not_begin_over_a_newer_state(directory: MachineDir) -> None:
    newer = b'{"version": 2, "wherry": "99.0"}'
    directory.state_file.write_bytes(newer)
    with pytest.raises(Refused, match=r"wherry 99\.0"):
        Supervisor(directory)
    assert directory.state_file.read_bytes() == newer
