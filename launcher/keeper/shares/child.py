"""The process that serves, seen from the keeper: started, told what is to be, started again when it dies."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from launcher import host, proc
from launcher.keeper.shares.orders import LONGEST, Told, line

log = logging.getLogger("wherry.keeper.shares")

_PAUSES: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # before the next one
_LASTED: Final = 60.0  # seconds after which one that dies is not one that keeps dying
_ENDS_WITHIN: Final = 5.0


class Child:
    """Begins with the first order. Each kind of order is remembered, and told to the next process as well.

    `heard` gets every report, and an empty one when the process has died; `on_note` what the user should know; `clock` counts
    seconds.
    """

    def __init__(
        self,
        log_file: Path,
        heard: Callable[[dict[str, Told]], None],
        on_note: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._log_file = log_file
        self._heard = heard
        self._on_note = on_note
        self._clock = clock
        self._changed = threading.Condition()  # for all below
        self._orders: dict[str, dict[str, Any]] = {}
        self._number = 0  # of the latest
        self._obeyed = 0  # up to which one
        self._used = 0
        self._process: proc.Process | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def order(self, kind: str, message: dict[str, Any]) -> None:
        """Tell it, and each that comes after; the newest of each kind counts."""
        with self._changed:
            if self._closed:
                return
            self._number += 1
            message = {**message, "number": self._number}
            self._orders[kind] = message
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shares", daemon=True)
                self._thread.start()
            elif self._process is not None:
                _write(self._process, message)

    def forget(self, kind: str) -> None:
        """The next process is not told."""
        with self._changed:
            self._orders.pop(kind, None)

    def once(self, message: dict[str, Any]) -> None:
        """Tell the one that runs, if any."""
        with self._changed:
            if self._process is not None:
                _write(self._process, message)

    def obeyed(self, within: float) -> bool:
        """Whether all that was ordered until now holds, at the latest after so many seconds."""
        with self._changed:
            number = self._number
            self._changed.wait_for(lambda: self._closed or self._obeyed >= number, within)
            return self._obeyed >= number

    @property
    def pid(self) -> int | None:
        with self._changed:
            return self._process.pid if self._process is not None else None

    def uses(self) -> tuple[int, int]:
        """None under way, and of how much use it has told."""
        return 0, self._used

    def close(self) -> None:
        """It ends, and there is no other."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            process, thread = self._process, self._thread
            if process is not None:
                with contextlib.suppress(OSError):
                    _input(process).close()
        if process is not None:
            try:
                process.wait(_ENDS_WITHIN)
            except proc.TimeoutExpired:
                log.warning("the shares' process does not end; it is killed")
                process.kill()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        tries = 0
        while True:
            began = self._clock()
            try:
                self._live()
            except Exception:  # whatever it is: nobody else would try again
                log.exception("the shares' process")
            tries = 1 if self._clock() - began > _LASTED else tries + 1
            with self._changed:
                if self._closed:
                    return
            self._heard({})
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, _PAUSES[min(tries, len(_PAUSES)) - 1]):
                    return

    def _live(self) -> None:
        """One process, to its end."""
        with self._changed:
            if self._closed:
                return
            process = self._start()
            self._process = process
            for message in self._orders.values():
                _write(process, message)
        try:
            with _output(process) as output:
                while told := output.readline(LONGEST):
                    self._hear(told)
        finally:
            # It has closed its end: it is gone, or not worth keeping.
            with self._changed:
                self._process = None
                with contextlib.suppress(OSError):
                    _input(process).close()
            try:
                code = process.wait(_ENDS_WITHIN)
            except proc.TimeoutExpired:
                process.kill()
                code = process.wait()
            if not self._closed:
                log.warning("the shares' process ended with exit code %d", code)

    def _start(self) -> proc.Process:
        with self._log_file.open("ab") as words:  # Python's own; its log knows nothing of them
            process = proc.spawn(
                [sys.executable, "-P", "-m", "launcher.keeper.shares", self._log_file],
                stdin=proc.PIPE, stdout=proc.PIPE, stderr=words, detach=host.current().detach_options(),
                tied=host.current().tied_options(),
            )  # fmt: skip
        log.info("the shares' process is %d", process.pid)
        return process

    def _hear(self, told: bytes) -> None:
        try:
            message = json.loads(told)
            if "note" in message:
                self._on_note(str(message["note"]))
                return
            if "used" in message:
                self._used += 1
                return
            if "obeyed" in message:
                with self._changed:
                    self._obeyed = max(self._obeyed, int(message["obeyed"]))
                    self._changed.notify_all()
                return
            heard = {name: Told(**values) for name, values in message["shares"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("the shares' process says %.200r", told)
            return
        self._heard(heard)


def _input(process: proc.Process) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin


def _output(process: proc.Process) -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout


def _write(process: proc.Process, message: dict[str, Any]) -> None:
    """One that is gone hears nothing: the next one is told again."""
    with contextlib.suppress(OSError, ValueError):
        _input(process).write(line(message))
        _input(process).flush()
