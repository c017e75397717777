"""When the next question is due on a connection: seldom while nobody uses it, since each one wakes the guest."""

from __future__ import annotations

import threading
import time
from typing import Final

CALM: Final = 30.0  # seconds between questions while nobody uses the connection
QUIET: Final = 120.0  # without use until then


class Rhythm:
    """One connection's. One thread waits, any other may `set`."""

    def __init__(self) -> None:
        self._due = threading.Event()
        self._used = time.monotonic()
        self._calm = False

    def wait(self, every: float) -> None:
        """Until the next question is due: after `every` seconds, or CALM."""
        self._calm = time.monotonic() - self._used >= QUIET
        self._due.wait(max(every, CALM) if self._calm else every)
        self._due.clear()
        self._calm = False

    def set(self) -> None:
        """It is due now."""
        self._due.set()

    def use(self) -> None:
        """Somebody uses the connection. Should it be dead, a question that was put off would tell too late."""
        self._used = time.monotonic()
        if self._calm:
            self._due.set()
