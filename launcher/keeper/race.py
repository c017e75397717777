"""Tries that may each take long, several of them at once: the first that succeeds counts.

A try whose first packet was lost sends it again after 6 s, then after 12 (slirp): where packets flow again meanwhile, a new
one is there at once. A guest that is busy needs long for its first word: so the tries before go on as well.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

from launcher.errors import WherryError
from launcher.ssh.library import broken
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper.link")

EVERY: Final = 3.0  # seconds until another try begins
MOST: Final = 3  # at once; with what slirp sends again, a packet every 3 s; more of them hold each other up in a slow guest


def first(attempt: Callable[[], Connection], needed: Callable[[], bool]) -> Connection | None:
    """The first connection; None when none is needed any more. Raises the last try's error when all that were begun failed."""
    race = _Race(attempt)
    try:
        race.begin()
        while needed():
            try:
                outcome = race.outcomes.get(timeout=EVERY)
            except queue.Empty:
                if race.running < MOST:
                    race.begin()
                continue
            race.running -= 1
            if isinstance(outcome, Connection):
                return outcome
            if not race.running:
                raise outcome
        return None
    finally:
        race.end()


class _Race:
    def __init__(self, attempt: Callable[[], Connection]) -> None:
        self._attempt = attempt
        self._lock = threading.Lock()
        self._over = False
        self.outcomes: queue.SimpleQueue[Connection | Exception] = queue.SimpleQueue()
        self.running = 0

    def begin(self) -> None:
        self.running += 1
        threading.Thread(target=self._try, name="link-try", daemon=True).start()

    def end(self) -> None:
        """Whoever succeeds from here on is late."""
        with self._lock:
            self._over = True
        while not self.outcomes.empty():
            outcome = self.outcomes.get()
            if isinstance(outcome, Connection):
                outcome.close()

    def _try(self) -> None:
        try:
            outcome: Connection | Exception = self._attempt()
        except (WherryError, *broken()) as error:
            outcome = error
        except Exception as error:  # a try that says nothing would count as running for ever
            log.exception("a try to connect")
            outcome = error
        with self._lock:
            if not self._over:
                self.outcomes.put(outcome)
                return
        if isinstance(outcome, Connection):
            outcome.close()
