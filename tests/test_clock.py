"""The guest's clock is compared, slewed or set; a fake helper plays iso/helpers/vitals.c, whose clock is off."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.errors import ConnectionLost
from launcher.keeper import clock
from launcher.keeper.clock import Clock, Sample
from launcher.keeper.health import Health
from launcher.ssh.transport import Connection
from tests.guestserver import Guest, guest

VITALS = """
import sys, time
off, slow, refused = int(sys.argv[1]), float(sys.argv[2]), sys.argv[4:]
log = open(sys.argv[3], "a")
for line in sys.stdin:
    words = line.split()
    if words[0] in refused:
        print("error Operation not permitted" if "nonsense" not in refused else "nonsense", flush=True)
        continue
    if words[0] == "t":
        time.sleep(slow)
        print(time.time_ns() + off, flush=True)
        continue
    print(*words, file=log, flush=True)
    if words[0] == "step":
        off += int(words[1])
    print("1000 400" if words[0] == "d" else "ok", flush=True)
"""


class Setup:
    def __init__(self, server: Guest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        self.server = server
        self.health = Health()
        self.clock = Clock(self.health)
        (folder / "vitals.py").write_text(VITALS)

    def off(self, seconds: float, slow: float = 0.0, refused: str = "") -> None:
        words = [sys.executable, self._folder / "vitals.py", int(seconds * 1e9), slow, self._folder / "log", refused]
        self._monkeypatch.setattr(clock, "_HELPER", f"exec {' '.join(map(str, words))}")

    @property
    def asked(self) -> list[str]:
        return [line.split()[0] for line in (self._folder / "log").read_text().splitlines()]

    @property
    def shown(self) -> int:
        return int(self.health.to_json()["parts"]["clock"]["detail"].removesuffix(" ms"))


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    with guest(tmp_path) as server:
        yield Setup(server, tmp_path, monkeypatch)


@pytest.mark.parametrize("seconds", [-9 * 3600.0, -0.3, 0.3, 5.0])
def test_a_clock_that_is_far_off_is_set(setup: Setup, seconds: float) -> None:
    setup.off(seconds)
    assert setup.clock.beat(setup.server.connect()) == pytest.approx(-seconds, abs=0.05)
    assert setup.asked == ["step", "d"] and abs(setup.shown) < 50


def test_a_little_is_slewed_and_next_to_nothing_is_left(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "STEP", 60.0)  # a little beside that, but more than a slow answer explains
    setup.off(1.0)
    assert setup.clock.beat(setup.server.connect()) == 0
    assert setup.asked == ["slew", "d"]


def test_what_a_slow_answer_could_explain_is_left(setup: Setup) -> None:
    # The clock is right, but is told 0.2 s late: seen from here it is 0.1 s ahead.
    setup.off(0, slow=0.2)
    assert setup.clock.beat(setup.server.connect()) == 0
    assert setup.asked == ["d"]


def test_only_what_is_certain_counts() -> None:
    assert Sample(0.1, 0.3).certain == 0
    assert Sample(-0.1, 0.1).certain == pytest.approx(0.05)


def test_the_disk_is_told_now_and_then(setup: Setup) -> None:
    setup.off(0)
    connection = setup.server.connect()
    for _ in range(7):
        setup.clock.beat(connection)
    assert setup.clock.disk == (1000, 400)
    assert setup.asked == ["d", "d"]


def test_an_image_without_the_helper_is_asked_once_for_each_connection(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_HELPER", "exit 127")
    connection = setup.server.connect()
    assert setup.clock.beat(connection) is None
    assert setup.clock.beat(connection) is None
    assert setup.server.commands == ["exit 127"]
    assert setup.health.state("clock") is None


def test_an_image_without_the_helper_whose_channel_is_closed_before_it_is_asked(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_HELPER", "exit 127")
    reached = Clock._reached

    def later(self: Clock, connection: Connection) -> bool:
        done = reached(self, connection)
        if done:
            assert self._channel is not None
            assert self._channel.recv(1) == b"" and self._channel.status_event.wait(30)
            self._channel.close()
        return done

    monkeypatch.setattr(Clock, "_reached", later)
    connection = setup.server.connect()
    assert setup.clock.beat(connection) is None
    assert setup.clock.beat(connection) is None
    assert setup.server.commands == ["exit 127"]


def test_a_helper_that_ends_is_started_again(setup: Setup) -> None:
    setup.off(0)
    connection = setup.server.connect()
    setup.clock.beat(connection)
    setup.server.processes[0].kill()
    with pytest.raises(ConnectionLost):
        setup.clock.beat(connection)
    assert setup.clock.beat(connection) == 0
    assert len(setup.server.commands) == 2


@pytest.mark.parametrize("refused", ["t", "step"])
def test_a_clock_that_cannot_be_told_or_set_is_not_well(setup: Setup, refused: str) -> None:
    setup.off(5, refused=refused)
    connection = setup.server.connect()
    for _ in range(2):
        assert setup.clock.beat(connection) is None
    part = setup.health.to_json()["parts"]["clock"]
    assert part == {"state": "failed", "detail": f"the guest says to {refused}: Operation not permitted"}
    assert len(setup.server.commands) == 1


def test_a_clock_of_which_nonsense_is_told_is_asked_anew(setup: Setup) -> None:
    setup.off(0, refused="t nonsense")
    connection = setup.server.connect()
    for _ in range(2):
        assert setup.clock.beat(connection) is None
    assert setup.health.state("clock") == "failed"
    assert len(setup.server.commands) == 2


def test_a_disk_of_which_nothing_is_known_says_nothing_of_the_clock(setup: Setup) -> None:
    setup.off(0, refused="d")
    assert setup.clock.beat(setup.server.connect()) == 0
    assert setup.health.state("clock") == "ok"
    assert setup.clock.disk is None
