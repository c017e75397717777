"""Errors of a keeper's small calls say what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.errors import ConnectionLost, Damaged, EngineFailed, NotRunning, WherryError
from launcher.keeper import access, engine
from launcher.keeper.supervisor import Supervisor
from launcher.machine import run
from launcher.machine.create import UpOptions
from launcher.report import SilentReporter
from launcher.state import State
from tests.fakes import CONFIG, make_machine


class Guest:
    """Whose helpers fail."""

    def run(self, _argv: list[str], *, timeout: float) -> tuple[int, bytes, bytes]:
        return 1, b"", b"iptables: no\n"


def test_host_access_that_cannot_be_put_in_force() -> None:
    guest: Any = Guest()
    with pytest.raises(WherryError, match=r"could not be put in force: iptables: no$") as caught:
        access.apply(guest, CONFIG)
    assert caught.value.hint


def test_an_answer_of_the_engine_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_asked", lambda *_, **__: (500, b'{"message": "no"}', {}))
    connection: Any = None
    with pytest.raises(EngineFailed, match=r"answered 500 to GET /version: no$") as caught:
        engine.version(connection)
    assert caught.value.hint == "wherry logs engine"


@pytest.mark.parametrize("met", [NotRunning("the machine is not running."), ConnectionLost("it ended.")])
def test_a_start_that_was_over_before_it_was_asked_says_why(
    met: WherryError, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keeper may have ended, and its socket be gone, before the command came to watch."""
    directory = make_machine()
    directory.write_state(State(status="failed", last_error=Damaged("there are two disks.").to_json()))
    monkeypatch.setattr(run, "ensure_keeper", lambda *_, **__: None)

    def watch(*_: object) -> None:
        raise met

    monkeypatch.setattr(run, "follow_start", watch)
    with pytest.raises(Damaged, match="two disks"):
        run.up(directory.name, UpOptions(), SilentReporter())


def test_a_machine_without_a_port_or_a_qemu(home: Path) -> None:
    keeper = Supervisor(make_machine())
    for ask in (keeper.link.fresh, keeper.link._probe):
        with pytest.raises(NotRunning) as caught:
            ask()
        assert caught.value.hint == "wherry up default"
