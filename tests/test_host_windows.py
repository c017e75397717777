"""What Windows says, and what is made of it: on any system, with its answers given."""

from __future__ import annotations

import pytest

from launcher import proc
from launcher.errors import WherryError
from launcher.host import windows

RANGES = """
Protocol tcp Port Exclusion Ranges

Start Port    End Port
----------    --------
      5357        5357
     50000       50059     *

* - Administered port exclusions.
"""


def test_a_reserved_port_is_said_to_be_that_with_the_command_that_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(proc, "run", lambda argv, timeout: asked.append(argv) or RANGES)
    why, remedy = windows.port_denied("tcp", 50010)
    assert why == "Windows has reserved the ports 50000-50059"
    assert remedy.startswith("netsh int ipv4 show excludedportrange tcp lists them; as administrator: net stop winnat")
    assert asked == [["netsh", "int", "ipv4", "show", "excludedportrange", "tcp"]]


def test_a_port_that_is_denied_and_not_reserved_is_another_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "run", lambda argv, timeout: RANGES)
    assert windows.port_denied("udp", 50060) == ("another program has it for itself alone", "End that program")

    def fails(argv: list[str], timeout: float) -> str:
        raise WherryError("netsh failed.")

    monkeypatch.setattr(proc, "run", fails)
    assert windows.port_denied("tcp", 50010)[0] == "another program has it for itself alone"
