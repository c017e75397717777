"""Homes of their own for tests, and the tiers: unit by default, vm and install by folder, soak on request."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from launcher import host
from tests.fakes import FakeKeeper

ROOT = Path(__file__).parent.parent
SOAK = os.environ.get("WHERRY_SOAK") == "1"
UNTIL = float(os.environ.get("WHERRY_TEST_UNTIL") or "inf")  # seconds since the epoch; `make test` sets it
_NO_TIME = "no time was left: make vm and make install-test have no limit"
_ORDER = {"vm": 2, "install": 1}
_TIERS = {"vm": "vm", "install": "install", "windows": "install"}  # of a folder


def pytest_configure() -> None:
    """What our starter ignores (nohup, a shell's background job) our children would ignore too: signals could not be tested."""
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", None), getattr(signal, "SIGQUIT", None), signal.SIGTERM):
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder, and run what is quick first."""
    for item in items:
        tier = _TIERS.get(item.path.parent.name)
        if tier is not None and item.get_closest_marker(tier) is None:
            item.add_marker(tier)
        if item.get_closest_marker("soak") and not SOAK:
            item.add_marker(pytest.mark.skip(reason="WHERRY_SOAK=1 runs it"))
    items.sort(key=lambda item: _ORDER.get(_TIERS.get(item.path.parent.name, ""), 0))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """On a computer too slow for all of it `make test` ends in time, and names what it left out."""
    if time.time() > UNTIL and any(item.get_closest_marker(tier) for tier in _ORDER):
        pytest.skip(_NO_TIME)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What tests left in their property "table": with -n what a worker prints of a test that passed is lost."""
    reports = [
        report for found in terminalreporter.stats.values() for report in found if getattr(report, "when", "") == "teardown"
    ]
    lines = dict.fromkeys(value for report in reports for name, value in report.user_properties if name == "table")
    left = [report.nodeid for report in terminalreporter.stats.get("skipped", []) if _NO_TIME in str(report.longrepr)]
    for title, those in (("measured", lines), ("left out, as no time was left", left)):
        if those:
            terminalreporter.section(title)
        for line in those:
            terminalreporter.line(line)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty WHERRY_HOME and docker folder, and no setting of the developer's own."""
    ours = ("WHERRY_MACHINE", "_WHERRY_COMPLETE")
    for name in (*ours, "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WHERRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr(host.current(), "docker_socket", lambda: tmp_path / "usual.sock")  # the developer may have an engine
    return tmp_path / "home"


@dataclass(frozen=True)
class Said:
    """What a command line answered."""

    code: int
    out: str
    err: str


@pytest.fixture
def wherry(home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Runs the command line in this process, with neither input nor terminal."""
    from launcher.__main__ import main

    def run(*words: str) -> Said:
        with open(os.devnull) as nothing:
            monkeypatch.setattr("sys.stdin", nothing)
            code = main(words)
        said = capfd.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def keeper(home: Path, tmp_path: Path) -> Iterator[FakeKeeper]:
    """A machine `default` that runs, as far as the control socket tells."""
    fake = FakeKeeper("default", guest=tmp_path / "guest")
    fake.start()
    yield fake
    fake.close()


@pytest.fixture(autouse=True)
def client_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever docker is installed on this computer; tests of the choice say otherwise."""
    monkeypatch.setenv("WHERRY_CLIENT", "guest")
