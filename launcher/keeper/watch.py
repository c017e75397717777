"""What one QEMU and its guest have said so far, and waiting for the next word."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from launcher import readiness
from launcher.readiness import Line, Patience

_NOTES: Final = 50  # a guest that talks too much does not fill the keeper


class Ended(Exception):
    """QEMU is gone."""


class Cancelled(Exception):
    """A stop was asked for while one waited."""


class Stalled(Exception):
    """No word came within the patience; carries the seconds waited."""

    def __init__(self, waited: float) -> None:
        super().__init__(waited)
        self.waited = waited


class Watch:
    """Fed by the console thread and the thread that waits for QEMU; read by the supervisor's."""

    def __init__(self, on_message: Callable[[Line], None]) -> None:
        self._on_message = on_message
        self._changed = threading.Condition()
        self._last_word = time.monotonic()
        self._spoke = False
        self.stages: list[str] = []
        self.stops: list[str] = []
        self.notes: list[str] = []
        self.failure: Line | None = None
        self.panic: str | None = None
        self.fault = ""  # why QEMU was ended that held the machine
        self.ended = False
        self.exit_code: int | None = None  # of an ended QEMU; None as well when nobody can know it
        self.cancelled = False
        self._interrupted = False

    # Fed by others

    def on_byte(self) -> None:
        with self._changed:
            self._last_word = time.monotonic()
            self._spoke = True

    def on_line(self, text: str) -> None:
        line = readiness.parse(text)
        with self._changed:
            if line is None:
                if self.panic is None and readiness.is_panic(text):
                    self.panic = text.strip()
                return
            if line.kind == "stage":
                if line.name in self.stages:
                    return
                self.stages.append(line.name)
            elif line.kind == "stop":
                self.stops.append(line.name)
            elif line.kind == "fail":
                self.failure = self.failure or line
            elif len(self.notes) < _NOTES:
                self.notes.append(f"{line.name}: {line.text}")
            self._changed.notify_all()
        self._on_message(line)

    def on_exit(self, code: int | None) -> None:
        with self._changed:
            self.ended, self.exit_code = True, code
            self._changed.notify_all()

    def cancel(self) -> None:
        with self._changed:
            self.cancelled = True
            self._changed.notify_all()

    def interrupt(self) -> None:
        """Have `wait_end_or_cancel` return once; a start under way is not disturbed."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    # Asked by the supervisor

    def wait_stage(self, name: str, patience: Patience) -> None:
        """Until the guest reached that stage, or reported a failure. Raises Ended, Cancelled, Stalled."""

        def limit() -> float:
            return patience.later if self.stages else patience.first

        self._wait(lambda: name in self.stages or self.failure is not None, limit, cancellable=True)

    def wait_stop(self, seconds: float) -> bool:
        """Until the guest began its shutdown or QEMU ended; False when neither came within `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.stops) or self.ended, seconds)

    def wait_end(self, patience: float) -> bool:
        """Until QEMU ended; False when the guest was silent for `patience` seconds."""
        try:
            self._wait(lambda: self.ended, lambda: patience, cancellable=False)
        except Stalled:
            return False
        return True

    def wait_end_or_cancel(self) -> None:
        """Until QEMU ended or a stop was asked for, however long that takes; or `interrupt` was called."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or self.cancelled or self._interrupted)
            self._interrupted = False

    def _wait(self, done: Callable[[], bool], limit: Callable[[], float], *, cancellable: bool) -> None:
        began = time.monotonic()
        with self._changed:
            while not done():
                if self.ended:
                    raise Ended
                if cancellable and self.cancelled:
                    raise Cancelled
                waited = time.monotonic() - max(began, self._last_word)
                if waited >= limit():
                    raise Stalled(waited)
                self._changed.wait(limit() - waited)
