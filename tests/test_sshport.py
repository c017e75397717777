"""The port of the machine's sshd: one of the range, and QEMU's try decides."""

from __future__ import annotations

from typing import Any, cast

import pytest

from launcher.config import SSH_PORTS
from launcher.errors import WherryError
from launcher.qemu import sshport
from launcher.qemu.qmp import Qmp


class Monitor:
    """Takes hostfwd_add of the ports that are free."""

    def __init__(self, free: set[int]) -> None:
        self.free = free
        self.tried: list[int] = []

    def execute(self, command: str, /, **arguments: Any) -> str:
        assert command == "human-monitor-command"
        word, net, rule = str(arguments["command-line"]).split()
        assert (word, net) == ("hostfwd_add", "net0") and rule.startswith("tcp:127.0.0.1:") and rule.endswith("-:22")
        self.tried.append(int(rule.split(":")[2].removesuffix("-")))
        return "" if self.tried[-1] in self.free else "Could not set up host forwarding rule\r\n"


def test_a_free_port_is_found_wherever_it_is() -> None:
    for port in (SSH_PORTS[0], SSH_PORTS[50], SSH_PORTS[-1]):
        assert sshport.forward(cast(Qmp, Monitor({port}))) == port


def test_machines_do_not_all_begin_with_the_same() -> None:
    assert len({sshport.forward(cast(Qmp, Monitor(set(SSH_PORTS)))) for _ in range(50)}) > 10


def test_none_is_free() -> None:
    monitor = Monitor(set())
    with pytest.raises(WherryError, match="no port from 19800 to 19927") as caught:
        sshport.forward(cast(Qmp, monitor))
    assert sorted(monitor.tried) == list(SSH_PORTS) and caught.value.detail == "Could not set up host forwarding rule"


def test_the_range_is_apart_from_those_that_systems_choose_from() -> None:
    # The guest's own, which published ports come from; Linux; macOS and Windows.
    for low, high in ((20000, 29999), (32768, 60999), (49152, 65535)):
        assert SSH_PORTS[-1] < low or SSH_PORTS[0] > high
    assert SSH_PORTS[0] > 1024


# QEMU 7.2's own words.
USERNET = """Hub -1 (net0):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[ESTABLISHED]    8       127.0.0.1 19999       10.0.2.15    22     0     0
  TCP[FIN_WAIT_2]    -1       127.0.0.1 19999       10.0.2.15    22     0     0
  TCP[TIME_WAIT]     -1       127.0.0.1 19999       10.0.2.15    22     0     0
  TCP[ESTABLISHED]   11       127.0.0.1  8080       10.0.2.15  8080     0     0
  TCP[HOST_FORWARD]   3       127.0.0.1 19999       10.0.2.15    22     0     0
"""


def test_connections_that_the_guest_has_not_ended() -> None:
    class Told:
        def execute(self, _command: str, /, **_: Any) -> str:
            return USERNET.replace("\n", "\r\n")

    assert sshport.connections(cast(Qmp, Told())) == 2
