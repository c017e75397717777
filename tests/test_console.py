"""What a person sees, on consoles of all kinds."""

from __future__ import annotations

import io
import time

import pytest

from launcher import bars
from launcher.bars import TerminalReporter, proportion
from launcher.console import Console, PlainReporter, memory, seconds, size, table, write_line
from launcher.errors import WherryError


class Stream(io.TextIOWrapper):
    """A console with an encoding, a terminal or not."""

    def __init__(self, encoding: str = "utf-8", *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True, newline="")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode(self.encoding)

    def screen(self) -> list[str]:
        """What is left to be seen: a carriage return goes back, what comes then covers."""
        lines = []
        for line in self.text.replace("\x1b[A", "").split("\n"):
            shown = ""
            for part in line.split("\r"):
                shown = part + shown[len(part) :]
            lines.append(shown.rstrip())
        return [line for line in lines if line]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04, "0.0 s"),
        (6.24, "6.2 s"),
        (42.9, "42 s"),
        (60, "1 min"),
        (192, "3 min 12 s"),
        (11520, "3 h 12 min"),
        (187200, "2 d 4 h"),
    ],
)
def test_durations(value: float, text: str) -> None:
    assert seconds(value) == text


def test_sizes() -> None:
    assert [size(value) for value in (0, 999, 118_400_000, 12_400_000_000)] == ["0 B", "999 B", "118 MB", "12.4 GB"]
    assert [memory(value) for value in (4 << 30, 512 << 20, 3 << 29, 100 << 30)] == ["4 GB", "512 MB", "1.5 GB", "100 GB"]


def test_tables() -> None:
    assert table(("name", "size"), [("default", "4 GB"), ("a", "12 GB")]) == "NAME      SIZE\ndefault   4 GB\na         12 GB"


def test_a_console_without_utf8_gets_ascii() -> None:
    stream = Stream("ascii")
    write_line(stream, "Ready · hvf … ███ größe")
    assert stream.text == "Ready - hvf ... ### gr\\xf6\\xdfe\n"
    stream = Stream("cp1252")
    write_line(stream, "a → b")
    assert stream.text == "a -> b\n"


def test_undecodable_names_do_not_break_a_line() -> None:
    stream = Stream()
    write_line(stream, "file \udcff")
    assert stream.text == "file \\udcff\n"


def test_json_says_one_object_and_no_story() -> None:
    out, err = Stream(), Stream(terminal=True)
    console = Console(json=True, out=out, err=err)
    with console.telling(starting=True) as reporter:
        reporter.step("iso", "x")
        reporter.stage("ready", 1.0)
    console.story("a story")
    console.error(WherryError("it"))
    assert err.text == ""
    assert out.text.count('"ok": false') == 1


def test_progress_is_for_terminals() -> None:
    err = Stream()
    with Console(err=err).telling(starting=True) as reporter:
        assert isinstance(reporter, PlainReporter)
        reporter.step("iso", "x")
        reporter.note("y")
        reporter.stage("ready", 1.0)
        reporter.warn("the disk is full")
    assert err.text == "wherry: the disk is full\n"


@pytest.mark.parametrize(("encoding", "full"), [("utf-8", "█"), ("ascii", "#")])
def test_a_start_leaves_its_lines_and_no_bar(encoding: str, full: str) -> None:
    err = Stream(encoding, terminal=True)
    with Console(err=err).telling(lambda: 9.0, starting=True) as reporter:
        reporter.step("iso", "wherry 0.1.0 amd64")
        for name, at in (("kernel", 1.0), ("root", 1.02), ("engine", 5.0), ("ready", 6.2)):
            reporter.stage(name, at)
    assert "about 9.0 s as last time" in err.text
    screen = err.screen()
    assert len(screen) == 2 and screen[0] == "  iso       wherry 0.1.0 amd64"
    assert screen[1].startswith("  kernel ") and f"engine {full}" in screen[1] and "root" not in screen[1]
    assert screen[1].endswith(" 1.2 s")
    assert encoding == "utf-8" or err.text.isascii()


def test_bars_are_gone_after_a_failure() -> None:
    err = Stream(terminal=True)
    with pytest.raises(WherryError), Console(err=err).telling(starting=True) as reporter:
        reporter.stage("kernel", 1.0)
        raise WherryError("it")
    assert err.screen() == []


def test_a_short_copy_has_no_bar_a_long_one_has(monkeypatch: pytest.MonkeyPatch) -> None:
    err = Stream(terminal=True)
    reporter = TerminalReporter(err)
    reporter.progress("copy", 1, 1000)
    reporter.progress("copy", 1000, 1000)
    assert err.text == ""
    monkeypatch.setattr(bars, "SHOW_AFTER", 0.0)
    reporter.progress("copy", 1_000_000, 50_000_000)
    time.sleep(0.2)
    reporter.progress("copy", 20_000_000, 50_000_000)
    assert "copy" in err.text and "of 50.0MB" in err.text
    reporter.progress("copy", 50_000_000, 50_000_000)
    reporter.end()
    assert err.screen() == []


def test_proportions() -> None:
    assert [proportion(share, utf8=True) for share in (0, 0.01, 0.5, 1, 2)] == ["▏", "▏", "█" * 6, "█" * 12, "█" * 12]
    assert [proportion(share, utf8=False) for share in (0, 0.5, 1)] == ["#", "#" * 6, "#" * 12]


def test_parts_are_wrapped_whole() -> None:
    parts = ["kernel #### 2.1 s", "root # 0.3 s", "engine ######## 7.2 s"]
    assert bars.wrapped(parts, 200) == ["  " + "   ".join(parts)]
    assert bars.wrapped(parts, 40) == ["  kernel #### 2.1 s   root # 0.3 s", "  engine ######## 7.2 s"]
    assert bars.wrapped(parts, 10) == [f"  {part}" for part in parts]


@pytest.mark.parametrize("columns", [40, 60, 80, 132])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_start_fits_a_narrow_terminal(columns: int, encoding: str) -> None:
    """On a real terminal of that width: no line of a start, bar or not, reaches its last column."""
    fcntl = pytest.importorskip("fcntl")
    import os
    import struct
    import termios
    import threading

    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    said = bytearray()

    def read() -> None:
        try:
            while data := os.read(master, 65536):
                said.extend(data)
        except OSError:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    stages = ("kernel", "root", "disk", "ssh", "engine", "hello", "ready")
    stream = open(slave, "w", encoding=encoding, errors="strict")  # noqa: SIM115
    with stream, Console(err=stream).telling(lambda: 31.0, starting=True) as reporter:
        reporter.note("kvm does not work here (QEMU ended before the machine was up (signal 6)); trying tcg")
        for number, name in enumerate(stages, 1):
            reporter.stage(name, number * 4.3)
    reader.join(10)
    os.close(master)
    pieces = [piece for line in said.decode().split("\n") for piece in line.split("\r")]
    seen = [piece.replace("\x1b[A", "").rstrip() for piece in pieces]
    assert "about 31 s as last time" in said.decode() or columns == 40
    assert "ready" in said.decode() and max(len(piece) for piece in seen) < columns
