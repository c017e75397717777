"""The terminal on Linux and macOS: termios(3)."""

from __future__ import annotations

import errno
import os
import select
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from launcher.host._size import size

_STDIN: Final = 0
_INPUT_FLAGS: Final = (
    termios.BRKINT | termios.ICRNL | termios.INLCR | termios.IGNCR | termios.INPCK | termios.ISTRIP | termios.IXON
)
_LOCAL_FLAGS: Final = termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG


class PosixTerminal:
    # After a stop the window may have been resized meanwhile.
    RESIZES: frozenset[int] = frozenset({signal.SIGWINCH, signal.SIGCONT})

    def read(self, count: int) -> bytes:
        while True:
            try:
                return os.read(_STDIN, count)
            except BlockingIOError:
                # Another program of the terminal may have made it non-blocking.
                select.select([_STDIN], [], [])
            except OSError:
                return b""  # closed, or the terminal is gone (EIO)

    def write(self, descriptor: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                select.select([], [descriptor], [])

    def size(self) -> tuple[int, int]:
        return size()

    @contextmanager
    def raw(self) -> Iterator[None]:
        """In the main thread only: it handles SIGTSTP and SIGCONT."""
        before = termios.tcgetattr(_STDIN)
        wanted = _raw(before)

        def stop(_number: int, _frame: object) -> None:
            _set(before)
            signal.raise_signal(signal.SIGSTOP)

        def resume(_number: int, _frame: object) -> None:
            # In the background this stops us again (SIGTTOU), as it should.
            _set(wanted)

        handlers = {number: signal.getsignal(number) for number in (signal.SIGTSTP, signal.SIGCONT)}
        try:
            signal.signal(signal.SIGTSTP, stop)
            signal.signal(signal.SIGCONT, resume)
            _set(wanted)
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            _set(before)

    def signals(self) -> dict[int, str]:
        names = ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2")
        return {getattr(signal, f"SIG{name}"): name for name in names}


def _set(mode: list[Any]) -> None:
    """Set the terminal's mode; a job that is stopped for it while in the background (SIGTTOU) tries again in the foreground."""
    while True:
        try:
            termios.tcsetattr(_STDIN, termios.TCSADRAIN, mode)
            return
        except termios.error as error:
            if error.args[0] != errno.EINTR:
                raise


def _raw(mode: list[Any]) -> list[Any]:
    """What cfmakeraw(3) does to a copy of `mode`."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = mode
    characters = list(characters)
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    cflag = (cflag & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    return [iflag & ~_INPUT_FLAGS, oflag & ~termios.OPOST, cflag, lflag & ~_LOCAL_FLAGS, ispeed, ospeed, characters]
