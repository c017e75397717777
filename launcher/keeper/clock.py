"""The guest's clock beside ours, and how full its disk is: asked over one channel to iso/helpers/vitals.c.

An answer takes a while to come, longer from a busy guest; the true difference lies within half of that around what is measured
(as in RFC 5905, 8). Only what is certain is corrected: a little by slewing, more by setting.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from launcher.errors import ConnectionLost
from launcher.keeper.health import Health
from launcher.ssh.library import broken
from launcher.ssh.transport import Connection, close

if TYPE_CHECKING:
    from paramiko import Channel

log = logging.getLogger("wherry.keeper.clock")

_HELPER: Final = "exec /usr/lib/wherry/vitals"
SLEW: Final = 0.004  # seconds
STEP: Final = 0.050
_TRIES: Final = 4  # the quickest answer counts
_QUICK: Final = 0.020
_ANSWERS_WITHIN: Final = 5.0
_DISK_EVERY: Final = 6  # beats


@dataclass(frozen=True)
class Sample:
    """The guest's clock less ours, and how long the answer took; seconds."""

    offset: float
    took: float

    @property
    def certain(self) -> float:
        """By how much the clock is wrong at least."""
        return max(0.0, abs(self.offset) - self.took / 2)


class _Refused(Exception):
    """The helper understood, and cannot."""


class Clock:
    """Safe to use from many threads."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._lock = threading.Lock()  # for all below
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._without: Connection | None = None  # one whose guest has no helper
        self._pending = b""
        self._beats = 0
        self.disk: tuple[int, int] | None = None  # of the guest's data disk: bytes in all, free

    def beat(self, connection: Connection) -> float | None:
        """Compare and correct. By how many seconds the clock was set, 0 when it was near enough, None where it is not known to
        be right: a guest without the helper, or one that cannot set it. Raises ConnectionLost."""
        with self._lock:
            if not self._reached(connection):
                return None
            try:
                return self._beat()
            except _Refused as error:
                self._health.report("clock", "failed", str(error))
            except ValueError as error:  # no answer to what was asked
                self._hang_up()
                self._health.report("clock", "failed", f"it cannot be understood: {error}")
            except broken() as error:  # socket.timeout among them
                self._hang_up()
                if self._without is not connection:
                    raise ConnectionLost(f"the guest's clock was not told: {error!r}") from error
            return None

    def _beat(self) -> float:
        sample = self._sample()
        moved = 0.0
        if sample.certain > STEP:
            moved = -sample.offset
            self._set("step", moved)
            log.info("the guest's clock was off by %+.3f s (asked in %.3f s): set", sample.offset, sample.took)
            sample = self._sample()
        elif sample.certain > SLEW:
            self._set("slew", -sample.offset)
        self._health.report("clock", "ok", f"{sample.offset * 1000:+.0f} ms")
        if self._beats % _DISK_EVERY == 0:
            self._ask_disk()
        self._beats += 1
        return moved

    def _ask_disk(self) -> None:
        try:
            total, free = self._ask("d").split()
            self.disk = int(total), int(free)
        except _Refused as error:
            log.warning("how full the guest's disk is: %s", error)
            self.disk = None

    def _sample(self) -> Sample:
        best: Sample | None = None
        for _ in range(_TRIES):
            wall, began = time.time(), time.monotonic()
            told = int(self._ask("t")) / 1e9
            took = time.monotonic() - began
            now = Sample(told - (wall + took / 2), took)
            if best is None or now.took < best.took:
                best = now
            if best.took < _QUICK:
                break
        assert best is not None
        return best

    def _set(self, how: str, by: float) -> None:
        answer = self._ask(f"{how} {by * 1e9:.0f}")
        if answer != "ok":
            raise ValueError(answer)

    def _reached(self, connection: Connection) -> bool:
        """Whether the helper runs on this connection; an older image has none."""
        if connection is self._without:
            return False
        if connection is self._connection:
            return True
        self._hang_up()
        channel = connection.open_session()
        try:
            channel.settimeout(_ANSWERS_WITHIN)
            channel.exec_command(_HELPER)
        except broken() as error:
            close(channel)
            raise ConnectionLost(f"the guest's clock cannot be asked: {error!r}") from error
        self._connection, self._channel, self._pending, self._beats = connection, channel, b"", 0
        return True

    def _hang_up(self) -> None:
        if self._channel is not None:
            close(self._channel)
        self._channel, self._connection = None, None

    def _ask(self, line: str) -> str:
        assert self._channel is not None
        try:
            self._channel.sendall(line.encode() + b"\n")
            while b"\n" not in self._pending:
                data = self._channel.recv(1024)
                if not data:
                    raise EOFError("the helper ended")
                self._pending += data
        except broken():
            if self._channel.status_event.wait(_ANSWERS_WITHIN) and self._channel.exit_status == 127:
                self._without = self._connection
            raise
        answer, _, self._pending = self._pending.partition(b"\n")
        text = answer.decode("ascii", "replace")
        if text.startswith("error"):
            raise _Refused(f"the guest says to {line.split()[0]}: {text.removeprefix('error').strip()}")
        return text
