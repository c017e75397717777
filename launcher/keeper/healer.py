"""What brings a running machine's parts back without anyone asking, and says so: after a lost connection, after a sleep."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from launcher.errors import WherryError
from launcher.keeper import engine
from launcher.keeper.clock import Clock
from launcher.keeper.health import Health
from launcher.keeper.link import Link
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper.healer")

_ENGINE_SECONDS: Final = 10.0
_LONG: Final = 60.0


class Healer:
    """Watches one link. `running`: whether the machine is up, so that its engine is to answer."""

    def __init__(self, link: Link, health: Health, running: Callable[[], bool]) -> None:
        self._link = link
        self._health = health
        self._running = running
        self._why = ""
        self._waking = threading.Lock()
        self.clock = Clock(health)
        link.subscribe(self._up)
        link.beat(self._beat)

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
                self.clock.beat(connection)
                self._check_engine(connection)
            except WherryError as error:  # the link goes on trying, and tells
                log.warning("after a jump of time: %s", error.message)
                return
            self._health.mended(f"{_jump(by)}: clock set, engine answers", time.monotonic() - began)

    def _up(self, connection: Connection) -> None:
        if self._running():
            self._check_engine(connection)

    def _beat(self, connection: Connection) -> None:
        if not self._running():
            return
        self.clock.beat(connection)
        if self._health.state("engine") != "ok":
            self._check_engine(connection)

    def _check_engine(self, connection: Connection) -> None:
        try:
            status, _ = engine.request(connection, "GET", "/_ping", timeout=_ENGINE_SECONDS)
        except WherryError as error:
            self._health.report("engine", "failed" if connection.alive else "repairing", error.message.rstrip("."))
            return
        self._health.report("engine", "ok" if status == 200 else "failed", "" if status == 200 else f"it answers {status}")


def _jump(by: float) -> str:
    if by == 0:
        return "there was space on this computer's disk again"
    return f"woke after {_duration(by)}" if by > 0 else f"this computer's clock was set back by {_duration(-by)}"


def _duration(seconds: float) -> str:
    if seconds < _LONG:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02} min" if hours else f"{minutes} min"
