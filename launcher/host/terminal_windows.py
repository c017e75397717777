"""The Windows console, through kernel32: bytes of UTF-8 on our side, UTF-16 on its.

Only the wide functions carry text without loss (ReadFile gives é as the byte of the code page). Pipes and files, also those
that stand in for a terminal in mintty, go through the C library as they are.
"""

from __future__ import annotations

import codecs
import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import wintypes
from typing import Any, Final

from launcher.host._size import size

_HANDLES: Final = {0: -10, 1: -11, 2: -12}  # STD_INPUT_HANDLE and so on
_LINE_INPUT: Final = 0x1 | 0x2 | 0x4  # ENABLE_PROCESSED_INPUT, _LINE_INPUT, _ECHO_INPUT
_VT_INPUT: Final = 0x200  # arrow keys as escape sequences
_VT_OUTPUT: Final = 0x4 | 0x8  # ENABLE_VIRTUAL_TERMINAL_PROCESSING, DISABLE_NEWLINE_AUTO_RETURN
_OPERATION_ABORTED: Final = 995  # how Ctrl-C ends a read of a line
_UNITS: Final = 8192  # UTF-16 units in one call; older consoles fail above 64 KB


class WindowsTerminal:
    # The console tells a resize only in its input records, which the reading of text drops.
    RESIZES: frozenset[int] = frozenset()

    def __init__(self, kernel32: Any = None) -> None:
        self._kernel32 = kernel32 or ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
        self._consoles = {number: handle for number in _HANDLES if (handle := self._console(number)) is not None}
        self._input = codecs.getincrementaldecoder("utf-16-le")("replace")
        self._outputs = {number: codecs.getincrementaldecoder("utf-8")("replace") for number in (1, 2)}
        self._line_mode = True

    def read(self, count: int) -> bytes:
        console = self._consoles.get(0)
        if console is None:
            try:
                return os.read(0, count)
            except OSError:
                return b""
        text = ""
        while not text:
            units = self._read_units(console, min(count // 2, _UNITS))
            if not units:
                return b""
            text = self._input.decode(units)
        # Ctrl-Z at the start of a line is the end of the input, as for every program of Windows.
        return b"" if self._line_mode and text.startswith("\x1a") else text.encode("utf-8", "replace")

    def write(self, descriptor: int, data: bytes) -> None:
        console = self._consoles.get(descriptor)
        if console is not None:
            self._write_units(console, self._outputs[descriptor].decode(data).encode("utf-16-le"))
            return
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def size(self) -> tuple[int, int]:
        return size()

    @contextmanager
    def raw(self) -> Iterator[None]:
        before = {number: self._mode(handle) for number, handle in self._consoles.items() if number in (0, 1)}
        try:
            for number, mode in before.items():
                wanted = (mode & ~_LINE_INPUT) | _VT_INPUT if number == 0 else mode | _VT_OUTPUT
                self._kernel32.SetConsoleMode(self._consoles[number], wanted)
            self._line_mode = False
            yield
        finally:
            self._line_mode = True
            for number, mode in before.items():
                self._kernel32.SetConsoleMode(self._consoles[number], mode)

    def signals(self) -> dict[int, str]:
        # Ctrl-Break asks a program to end when Ctrl-C did not.
        return {signal.SIGINT: "INT", getattr(signal, "SIGBREAK", 21): "TERM"}

    def _console(self, number: int) -> Any:
        """The handle of a standard stream that is a console, else None."""
        handle = self._kernel32.GetStdHandle(_HANDLES[number])
        return handle if self._kernel32.GetConsoleMode(handle, ctypes.byref(wintypes.DWORD())) else None

    def _mode(self, handle: Any) -> int:
        mode = wintypes.DWORD()
        self._kernel32.GetConsoleMode(handle, ctypes.byref(mode))
        return mode.value

    def _read_units(self, handle: Any, count: int) -> bytes:
        buffer = ctypes.create_string_buffer(2 * count)
        got = wintypes.DWORD()
        while True:
            self._kernel32.SetLastError(0)
            done = self._kernel32.ReadConsoleW(handle, buffer, count, ctypes.byref(got), None)
            if not done:
                return b""
            if got.value or self._kernel32.GetLastError() != _OPERATION_ABORTED:
                return buffer.raw[: 2 * got.value]

    def _write_units(self, handle: Any, units: bytes) -> None:
        written = wintypes.DWORD()
        while units:
            piece = units[: 2 * _UNITS]
            if not self._kernel32.WriteConsoleW(handle, piece, len(piece) // 2, ctypes.byref(written), None):
                raise BrokenPipeError("the console takes no output")
            units = units[2 * written.value :]
