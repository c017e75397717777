"""What brings a running machine's parts back without anyone asking, and says so: after a lost connection, after a sleep."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from launcher import host
from launcher.errors import WherryError
from launcher.keeper import engine
from launcher.keeper.clock import Clock
from launcher.keeper.health import Health
from launcher.keeper.link import Link
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper.healer")

_ENGINE_SECONDS: Final = 10.0
_SOCKET_SECONDS: Final = 2.0
_LONG: Final = 60.0

Check = Callable[[], str]


class Healer:
    """Watches one link. `running`: whether the machine is up, so that its engine is to answer."""

    def __init__(self, link: Link, health: Health, running: Callable[[], bool]) -> None:
        self._link = link
        self._health = health
        self._running = running
        self._why = ""
        self._waking = threading.Lock()
        self._checks: list[Check] = []
        self.clock = Clock(health)
        link.subscribe(self._up)
        link.beat(self._beat)

    def set_clock(self, connection: Connection) -> None:
        """In a start: an RTC tells whole seconds, and the first container is to have the right time."""
        try:
            self.clock.beat(connection)
        except WherryError as error:  # the next beat tries again
            log.info("after the start: %s", error.message)

    def check(self, look: Check) -> None:
        """Have `look` called after a sleep, too: it says in a few words what it found well, or raises WherryError."""
        self._checks.append(look)

    def on_link(self, why: str, seconds: float) -> None:
        """From the link: why it is missed, or that it is there again."""
        if why:
            self._why = why
            if self._running():
                self._health.report("engine", "repairing", why)
        elif self._running():
            self._health.mended(f"{self._why}: back", seconds)

    def engine_doubted(self, why: str) -> None:
        """Somebody saw the engine go: it is asked with each beat until it answers."""
        if self._running() and self._health.state("engine") == "ok":
            self._health.report("engine", "repairing", why)

    def woke(self, by: float) -> None:
        """Time jumped by so many seconds, or (0) the guest's own stood still: a thread sets the clock and looks at parts."""
        threading.Thread(target=self._wake, args=(by,), name="woke", daemon=True).start()

    def _wake(self, by: float) -> None:
        with self._waking:
            if not self._running():
                return
            log.info("time jumped by %+.1f s", by)
            began = time.monotonic()
            self._link.woke()
            try:
                connection = self._link.get()
            except WherryError as error:  # it goes on trying, and tells
                log.warning("after a jump of time: %s", error.message)
                return
            ours: list[Check] = [lambda: self._right_clock(connection), lambda: self._ask_engine(connection)]
            done = [words for look in [*ours, *self._checks] if (words := _words_of(look))]
            if done:
                self._health.mended(f"{_jump(by)}: {', '.join(done)}", time.monotonic() - began)

    def _right_clock(self, connection: Connection) -> str:
        moved = self.clock.beat(connection)
        return "" if moved is None else "clock set" if moved else "clock right"

    def _ask_engine(self, connection: Connection) -> str:
        return "engine answers" if self._check_engine(connection) else ""

    def _up(self, connection: Connection) -> None:
        if self._running():
            self._look(connection, engine_too=True)

    def _beat(self, connection: Connection) -> None:
        if self._running():
            self._look(connection, engine_too=self._health.state("engine") != "ok")

    def _look(self, connection: Connection, *, engine_too: bool) -> None:
        try:
            self.clock.beat(connection)
        finally:  # the engine may answer whatever becomes of the clock
            if engine_too:
                self._check_engine(connection)

    def _check_engine(self, connection: Connection) -> bool:
        """Whether it answers."""
        try:
            status, _ = engine.request(connection, "GET", "/_ping", timeout=_ENGINE_SECONDS)
        except WherryError as error:
            self._health.report("engine", "failed" if connection.alive else "repairing", error.message.rstrip("."))
            return False
        self._health.report("engine", "ok" if status == 200 else "failed", "" if status == 200 else f"it answers {status}")
        return status == 200


def listening(path: Path, health: Health) -> Check:
    """A check that somebody listens at our socket: a program may have swept away files that it held for old."""

    def look() -> str:
        try:
            host.current().endpoints().connect(path, _SOCKET_SECONDS).close()
        except OSError as error:
            health.report("socket", "failed", f"nobody listens at {path}: {error.strerror or error}")
            raise WherryError(f"nobody listens at {path}: {error}.", hint="wherry restart") from error
        health.report("socket", "ok")
        return "socket listens"

    return look


def _words_of(look: Check) -> str:
    try:
        return look()
    except WherryError as error:
        log.warning("after a jump of time: %s", error.message)
    except Exception:  # one part's trouble is not the other's
        log.exception("after a jump of time")
    return ""


def _jump(by: float) -> str:
    if by == 0:
        return "this computer's disk could be written again"
    return f"woke after {_duration(by)}" if by > 0 else f"this computer's clock was set back by {_duration(-by)}"


def _duration(seconds: float) -> str:
    if seconds < _LONG:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02} min" if hours else f"{minutes} min"
