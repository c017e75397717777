"""What a person sees: answers on stdout, the story on stderr, tables, the JSON envelope, bars that vanish."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TextIO, runtime_checkable

from launcher.errors import WherryError
from launcher.report import Reporter, SilentReporter

_ASCII = str.maketrans({"·": "-", "…": "...", "█": "#", "▏": "|", "→": "->"})


def speaks_utf8(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "").startswith("utf8")


def write_line(stream: TextIO, text: str) -> None:
    """One line, whatever the console's encoding can show of it."""
    if not speaks_utf8(stream):
        text = text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")
    stream.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
    stream.flush()


def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed by the parent
        return False


def render_error(error: WherryError) -> str:
    """What failed and why, the lines that show the cause, one next step."""
    lines = [f"wherry: {error.message}"]
    if error.detail:
        lines += [f"        | {line}" for line in error.detail.splitlines()]
    if error.hint:
        lines += [f"        {line}" for line in error.hint.splitlines()]
    return "\n".join(lines)


def seconds(value: float) -> str:
    """A duration as one says it: 6.2 s, 3 min 12 s, 3 h 12 min, 2 d 4 h."""
    if value < 10:
        return f"{value:.1f} s"
    whole = int(value)
    if whole < 60:
        return f"{whole} s"
    for size, unit, small, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit} {rest} {name}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def size(value: int) -> str:
    """Bytes as one says them, in powers of 1000: 118 MB, 12.4 GB."""
    number = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def memory(value: int) -> str:
    """Sizes that were chosen in powers of 1024, as they were written: 4 GB, 512 MB."""
    for shift, unit in ((40, "TB"), (30, "GB"), (20, "MB")):
        if value >= 1 << shift:
            return f"{value / (1 << shift):.1f}".removesuffix(".0") + f" {unit}"
    return f"{value} B"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as docker prints them: upper-case heads, three blanks between, nothing at the right."""
    lines = [[word.upper() for word in head], *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


class Console:
    """One command's voice. With `json` it says one object at its end and nothing else."""

    def __init__(
        self,
        *,
        json: bool = False,
        quiet: bool = False,
        debug: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self.json = json
        self.quiet = quiet
        self.debug = debug
        self._out = out or sys.stdout
        self._err = err or sys.stderr

    @property
    def err_terminal(self) -> bool:
        return is_terminal(self._err)

    def answer(self, data: Any, text: str) -> None:
        """The answer of the command: `data` in JSON, else `text`; an empty text says nothing."""
        if self.json:
            write_line(self._out, json.dumps({"ok": True, "data": data, "error": None}, indent=1))
        elif text:
            write_line(self._out, text)

    def answer_text(self, text: str) -> None:
        """An answer that is for a program to read, unless it reads JSON."""
        if not self.json:
            write_line(self._out, text)

    def story(self, text: str) -> None:
        """A line that one may like to know; with -q or --json it is not said."""
        if not (self.quiet or self.json):
            write_line(self._err, text)

    def warning(self, text: str) -> None:
        write_line(self._err, f"wherry: {text}")

    def error(self, error: WherryError) -> None:
        """The end of a command that failed; called in the handler of the exception, so that --debug has its traceback."""
        if self.debug:
            import traceback

            traceback.print_exc(file=self._err)
        if self.json:
            write_line(self._out, json.dumps({"ok": False, "data": None, "error": error.to_json()}, indent=1))
        else:
            write_line(self._err, render_error(error))

    @contextlib.contextmanager
    def telling(self, expected: Callable[[], float | None] = lambda: None, *, starting: bool = False) -> Iterator[Reporter]:
        """Who tells the story of a long work; its bars are gone at the end, whatever happens.

        `expected`: how long the last start took, in seconds. `starting`: show the bar of a start at once.
        """
        reporter = self._reporter(expected)
        try:
            if starting and isinstance(reporter, BarReporter):
                reporter.begin()
            yield reporter
        finally:
            if isinstance(reporter, BarReporter):
                reporter.end()

    def _reporter(self, expected: Callable[[], float | None]) -> Reporter:
        if self.json or self.quiet:
            return SilentReporter()
        if not self.err_terminal:
            return PlainReporter(self._err)
        from launcher.bars import TerminalReporter

        return TerminalReporter(self._err, expected)


@runtime_checkable
class BarReporter(Protocol):
    """A reporter that holds bars, which must be taken away."""

    def begin(self, elapsed: float = 0.0) -> None: ...
    def end(self) -> None: ...


class PlainReporter(SilentReporter):
    """For a pipe or a log file: what must be acted on, no progress."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def warn(self, text: str) -> None:
        write_line(self._stream, f"wherry: {text}")
