"""Wherrys of different age over one machine: who works with whose keeper, and whose files are left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from launcher import __version__, control, host, release, store
from launcher.config import GIB
from launcher.errors import NoProgress, Refused, WherryError
from launcher.machine import inspect, succession
from launcher.machine.run import ensure_keeper
from launcher.report import SilentReporter
from launcher.state import State
from tests.conftest import Said
from tests.fakes import FakeKeeper, make_machine

OLD_FILES = sorted((Path(__file__).parent / "data").glob("[0-9]*"))
QUIET = SilentReporter()


class Notes(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize(
    ("one", "other", "newer"),
    [
        ("0.10.0", "0.9.0", True),
        ("0.1.0", "0.1.0", False),
        ("0.2.0", "0.2.0.dev4", True),
        ("0.2.0rc1", "0.2.0", False),
        ("1.0", "1.0.0", False),
        ("", "0.1.0", False),
        ("what?", "0.1.0", False),
    ],
)
def test_which_is_newer(one: str, other: str, newer: bool) -> None:
    assert release.is_newer(one, other) is newer


# Files


@pytest.mark.parametrize("folder", OLD_FILES, ids=lambda path: path.name)
def test_files_of_every_earlier_release_are_read(home: Path, folder: Path) -> None:
    directory = make_machine()
    for file in (directory.config_file, directory.state_file):
        file.write_bytes((folder / file.name).read_bytes())
    config, state = directory.read_config(), directory.read_state()
    assert (config.arch, config.cpus, config.memory, config.engine) == ("amd64", 2, 2 * GIB, {"log-level": "warn"})
    assert (state.status, state.qemu_pid, state.timeline[-1]) == ("running", 4711, ["ready", 18.1])
    # Written again they are ours, and say the same.
    directory.write_config(config.changed(cpus=3))
    directory.write_state(state)
    assert directory.read_config() == config.changed(cpus=3)
    assert directory.read_state().wherry == __version__


NEWER = {
    "machine.toml": [
        'version = 2\nwherry = "99.0"\n',
        'version = 1\nwherry = "99.0"\narch = "amd64"\ncpus = 1\nmemory = "1G"\niso = "a"\ncolour = "red"\n',
    ],
    "state.json": ['{"version": 2, "wherry": "99.0"}', '{"version": 1, "wherry": "99.0", "colour": 1}'],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in NEWER.items() for text in texts])
def test_files_of_a_newer_wherry_are_refused_and_left(wherry: Callable[..., Said], name: str, text: str) -> None:
    directory = make_machine()
    file = directory.path / name
    file.write_text(text)
    said = [wherry("up"), wherry("status")]
    for one in said:
        assert one.code == 6
        assert "wherry 99.0" in one.err + one.out
        assert f"this is wherry {__version__}" in one.err + one.out
    assert "Use wherry 99.0" in said[0].err
    assert wherry("docker", "ps").code == 125
    listed = wherry("list", "--json")
    assert listed.code == 0
    assert json.loads(listed.out)["data"][0]["status"] == "newer"
    for words in (("delete",), ("delete", "--yes"), ("upgrade", "--check")):
        assert wherry(*words).code == 6
    assert file.read_text() == text


def test_a_damaged_file_is_not_called_newer(home: Path) -> None:
    directory = make_machine()
    directory.state_file.write_text(f'{{"version": 1, "wherry": "{__version__}", "colour": 1}}')
    with pytest.raises(WherryError) as caught:
        directory.read_state()
    assert not isinstance(caught.value, Refused)
    assert inspect.status("default")["status"] == "broken"


# Keepers


def test_a_newer_keeper_is_refused(keeper: FakeKeeper, wherry: Callable[..., Said]) -> None:
    keeper.wherry = "99.0"
    said = wherry("up")
    assert said.code == 6
    assert "run by wherry 99.0" in said.err
    assert "wherry stop" in said.err
    assert wherry("docker", "ps").code == 125
    assert keeper.docker == []
    assert "99.0" in wherry("status").out
    assert {request["verb"] for request in keeper.requests} == {"status"}
    assert wherry("stop").code == 0  # its own keeper does it: nothing is in danger


def test_our_own_keeper_is_asked_once(keeper: FakeKeeper, wherry: Callable[..., Said]) -> None:
    assert wherry("docker", "ps").code == 0
    assert [request["verb"] for request in keeper.requests] == ["status", "exec"]


def test_an_older_keeper_lets_go(keeper: FakeKeeper) -> None:
    keeper.wherry = "0.0.1"
    assert succession.serving(keeper.directory, QUIET) is None
    assert [request["verb"] for request in keeper.requests] == ["status", "handover"]


def test_an_older_keeper_with_sessions_goes_on(keeper: FakeKeeper, wherry: Callable[..., Said]) -> None:
    keeper.wherry, keeper.sessions = "0.0.1", 2
    notes = Notes()
    assert succession.serving(keeper.directory, notes) == "running"
    assert notes.said == ["the keeper of wherry 0.0.1 goes on until its commands have ended (2 run)"]
    assert wherry("docker", "ps").code == 0
    assert keeper.docker == [["ps"]]


def test_an_older_keeper_of_another_protocol_with_sessions_is_refused(
    keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.wherry, keeper.sessions = "0.0.1", 2
    monkeypatch.setattr(succession.control, "PROTOCOL", control.PROTOCOL + 1)
    real = control.status
    monkeypatch.setattr(succession.control, "status", lambda path: {**real(path), "keeper": {"wherry": "0.0.1", "protocol": 1}})
    with pytest.raises(Refused, match="2 of its commands still run"):
        succession.serving(keeper.directory, QUIET)


def test_a_start_under_way_is_left_to_an_older_keeper(keeper: FakeKeeper) -> None:
    keeper.wherry, keeper.status = "0.0.1", "starting"
    assert succession.serving(keeper.directory, QUIET) == "starting"


@pytest.fixture
def process(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """What looks like a keeper of machine `default`, and never answers."""
    directory = make_machine()
    words = [sys.executable, "-c", "print(flush=True); import sys; sys.stdin.read()", "launcher.keeper", "default"]
    child = subprocess.Popen(words, cwd=directory.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.readline()
    yield child
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()


def _silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(_: Path) -> None:
        raise NoProgress("no answer")

    monkeypatch.setattr(control, "status", status)


def test_an_older_keeper_that_does_not_answer_is_killed(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = store.machine("default")
    directory.write_state(State(status="running", keeper_pid=process.pid))
    _silent(monkeypatch)
    with pytest.raises(NoProgress):  # ours: not for us to replace
        succession.serving(directory, QUIET)
    assert process.poll() is None
    older = {**directory.read_state().to_json(), "wherry": "0.0.1"}
    directory.state_file.write_text(json.dumps(older))
    assert succession.serving(directory, QUIET) is None
    assert not psutil.pid_exists(process.pid)


def test_a_process_that_is_no_keeper_of_this_machine_is_never_killed(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_machine("other")
    other.state_file.write_text(json.dumps({**State(status="running", keeper_pid=process.pid).to_json(), "wherry": "0.0.1"}))
    _silent(monkeypatch)
    with pytest.raises(WherryError, match="cannot be told from other processes"):
        succession.serving(other, QUIET)
    assert process.poll() is None


def test_a_keeper_that_does_not_know_the_word_is_killed_by_what_it_told(process: subprocess.Popen[bytes]) -> None:
    """0.1.0 told only its pid."""
    directory = store.machine("default")
    answer: dict[str, object] = {"status": "running", "keeper_pid": process.pid, "keeper": {"start": 1.0, "pid": process.pid}}
    with pytest.raises(WherryError, match="cannot be told"):  # the pid is another process's now
        succession.kill_keeper(directory, answer)
    del answer["keeper"]
    succession.kill_keeper(directory, answer)
    assert not psutil.pid_exists(process.pid)


def test_one_command_at_a_time_replaces(keeper: FakeKeeper) -> None:
    """The lock for starting a keeper is the one under which an older one is ended."""
    held = host.current().lock(keeper.directory.start_lock_file, wait=False)
    assert held is not None
    asking = threading.Thread(target=ensure_keeper, args=(keeper.directory, QUIET))
    asking.start()
    asking.join(0.3)
    assert keeper.requests == []
    os.close(held)
    asking.join(20)
    assert [request["verb"] for request in keeper.requests] == ["status"]
