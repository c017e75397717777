"""launcher.host.terminal_windows against a kernel32 of ours."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any

import pytest

from launcher.host.terminal_windows import WindowsTerminal


class Kernel32:
    """A console on every standard handle, unless `consoles` says which."""

    def __init__(self, consoles: tuple[int, ...] = (-10, -11, -12)) -> None:
        self.modes = dict.fromkeys(consoles, 0x7)
        self.typed: list[str | int] = []  # text, or an error code without any
        self.written: dict[int, bytes] = {-11: b"", -12: b""}
        self.takes = 1 << 20  # units that one write takes
        self.error = 0

    def GetStdHandle(self, number: int) -> int:
        return number

    def GetConsoleMode(self, handle: int, mode: Any) -> int:
        mode._obj.value = self.modes.get(handle, 0)
        return int(handle in self.modes)

    def SetConsoleMode(self, handle: int, mode: int) -> int:
        self.modes[handle] = mode
        return 1

    def SetLastError(self, error: int) -> None:
        self.error = error

    def GetLastError(self) -> int:
        return self.error

    def ReadConsoleW(self, handle: int, buffer: Any, count: int, got: Any, control: None) -> int:
        text = self.typed.pop(0)
        units = b""
        if isinstance(text, int):
            self.error = text
        else:
            units = text.encode("utf-16-le", "surrogatepass")
        ctypes.memmove(buffer, units, len(units))
        got._obj.value = len(units) // 2
        return 1

    def WriteConsoleW(self, handle: int, data: bytes, count: int, written: Any, reserved: None) -> int:
        count = min(count, self.takes)
        self.written[handle] += data[: 2 * count]
        written._obj.value = count
        return int(self.takes > 0)


@pytest.fixture
def kernel32() -> Kernel32:
    return Kernel32()


def test_raw_changes_the_modes_and_gives_them_back(kernel32: Kernel32) -> None:
    before = dict(kernel32.modes)
    terminal = WindowsTerminal(kernel32)
    with pytest.raises(KeyError), terminal.raw():
        assert kernel32.modes == {-10: 0x200, -11: 0x7 | 0x4 | 0x8, -12: 0x7}
        raise KeyError
    assert kernel32.modes == before


def test_keys_are_utf8_though_a_pair_comes_in_halves(kernel32: Kernel32) -> None:
    kernel32.typed = ["é", "\ud83d", "\udea2", "\x03", "\x1a"]
    terminal = WindowsTerminal(kernel32)
    with terminal.raw():
        assert [terminal.read(100) for _ in range(4)] == ["é".encode(), "🚢".encode(), b"\x03", b"\x1a"]


def test_a_line_that_starts_with_ctrl_z_is_the_end(kernel32: Kernel32) -> None:
    kernel32.typed = ["line\r\n", "\x1a\r\n"]
    terminal = WindowsTerminal(kernel32)
    assert (terminal.read(100), terminal.read(100)) == (b"line\r\n", b"")


def test_ctrl_c_in_a_line_is_not_the_end(kernel32: Kernel32) -> None:
    kernel32.typed = [995, "on\r\n"]
    assert WindowsTerminal(kernel32).read(100) == b"on\r\n"


def test_a_console_without_more_input(kernel32: Kernel32) -> None:
    kernel32.typed = [6]
    assert WindowsTerminal(kernel32).read(100) == b""


def test_output_is_text_though_a_letter_comes_in_halves(kernel32: Kernel32) -> None:
    terminal = WindowsTerminal(kernel32)
    ship = "🚢 ok".encode()
    terminal.write(1, ship[:2])
    terminal.write(2, b"err")
    terminal.write(1, ship[2:])
    assert kernel32.written == {-11: "🚢 ok".encode("utf-16-le"), -12: "err".encode("utf-16-le")}


def test_output_that_the_console_takes_in_pieces(kernel32: Kernel32) -> None:
    kernel32.takes = 3
    WindowsTerminal(kernel32).write(1, b"0123456789")
    assert kernel32.written[-11].decode("utf-16-le") == "0123456789"


def test_a_console_that_is_gone(kernel32: Kernel32) -> None:
    kernel32.takes = 0
    with pytest.raises(BrokenPipeError):
        WindowsTerminal(kernel32).write(1, b"x")


def test_pipes_carry_bytes(capfd: pytest.CaptureFixture[str]) -> None:
    terminal = WindowsTerminal(Kernel32(consoles=()))
    terminal.write(1, b"out\r\n")
    terminal.write(2, b"err")
    assert capfd.readouterr() == ("out\r\n", "err")
    reading, writing = os.pipe()
    stdin = os.dup(0)
    try:
        os.dup2(reading, 0)
        os.write(writing, b"\0in")
        assert terminal.read(100) == b"\0in"
        with terminal.raw():
            pass
    finally:
        os.dup2(stdin, 0)
        for descriptor in (stdin, reading, writing):
            os.close(descriptor)


def test_signals(kernel32: Kernel32) -> None:
    assert WindowsTerminal(kernel32).signals() == {signal.SIGINT: "INT", 21: "TERM"}
    assert not WindowsTerminal(kernel32).RESIZES
