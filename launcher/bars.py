"""The reporter for a terminal: one bar over the stages of a start, bars for long copies; they vanish, the lines stay."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TextIO

from launcher.console import seconds as say_seconds
from launcher.console import speaks_utf8, write_line

# A copy that is over within this time, in seconds, gets no bar.
SHOW_AFTER: Final = 1.0
_STAGES: Final = 7
_CELLS: Final = 12


def proportion(share: float, utf8: bool) -> str:
    """A small bar, `share` of twelve cells, in eighths where the console can show them."""
    eighths = round(max(0.0, min(share, 1.0)) * _CELLS * 8)
    if not utf8:
        return "#" * max(1, eighths // 8)
    tail = " ▏▎▍▌▋▊▉"[eighths % 8].strip()
    return ("█" * (eighths // 8) + tail) or "▏"


def width_of(stream: TextIO) -> int:
    """Columns of the terminal that `stream` is, not of stdout, which may be elsewhere; 80 where that cannot be known."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return shutil.get_terminal_size().columns


def wrapped(parts: list[str], columns: int) -> list[str]:
    """Lines of parts, each two blanks in and shorter than the terminal; a part is never broken."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 3 + len(part) < columns:
            lines[-1] += f"   {part}"
        else:
            lines.append(f"  {part}")
    return lines


class TerminalReporter:
    """Steps as lines; the bar of a start moves by the clock, up to the length of the last start, and by stages."""

    def __init__(self, stream: TextIO, expected: Callable[[], float | None] = lambda: None) -> None:
        self._stream = stream
        self._find_expected = expected
        self._expected: float | None = None
        self._utf8 = speaks_utf8(stream)
        self._lock = threading.RLock()
        self._bar: Any = None  # tqdm, for a start
        self._copy: Any = None  # tqdm, for bytes
        self._copy_since = 0.0
        self._began = 0.0
        self._now = "start"
        self._stages: list[tuple[str, float]] = []
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None

    def step(self, name: str, text: str) -> None:
        self._line(f"  {name:<10}{text}")
        if name == "machine":
            self.begin()  # made; what follows is its start

    def note(self, text: str) -> None:
        self._text("  ", text)

    def warn(self, text: str) -> None:
        self._text("wherry: ", text)

    def _text(self, head: str, text: str) -> None:
        """A sentence, broken between words where the terminal is too narrow for it."""
        import textwrap

        columns = max(width_of(self._stream) - 1, 20)
        for line in textwrap.wrap(
            text, columns, initial_indent=head, subsequent_indent=" " * (len(head) + 2), break_long_words=False,
            break_on_hyphens=False,
        ):  # fmt: skip
            self._line(line)

    def stage(self, name: str, seconds: float) -> None:
        with self._lock:
            if self._bar is None:
                self.begin(seconds)
            # A start that others began is told from its beginning.
            self._began = min(self._began, time.monotonic() - seconds)
            self._stages.append((name, seconds))
            self._now = name
            self._draw()
            if name == "ready":
                self._show_stages()
                self.end()

    def begin(self, elapsed: float = 0.0) -> None:
        """Show the bar of a start that began `elapsed` seconds ago."""
        with self._lock:
            if self._bar is not None:
                return
            self._began = time.monotonic() - elapsed
            self._expected = self._find_expected()
            self._bar = self._make_bar(self._expected or _STAGES)
            self._draw()
            self._ended.clear()
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()

    def end(self) -> None:
        """Take every bar away; safe to call twice."""
        self._ended.set()
        ticker, self._ticker = self._ticker, None
        with self._lock:
            for bar in (self._bar, self._copy):
                if bar is not None:
                    bar.close()
                    self._wipe()
            self._bar = self._copy = None
        if ticker is not None and ticker is not threading.current_thread() and not self._holds_lock():
            ticker.join(timeout=1)

    def progress(self, name: str, done: int, total: int) -> None:
        with self._lock:
            if done >= total:
                if self._copy is not None:
                    self._copy.close()
                self._copy, self._copy_since = None, 0.0
                return
            now = time.monotonic()
            self._copy_since = self._copy_since or now
            if self._copy is None and now - self._copy_since >= SHOW_AFTER:
                self._copy = self._make_bar(total, unit=True)
                cells = max(4, min(24, width_of(self._stream) - 52))
                self._copy.bar_format = f"  {name:<10}{{bar:{cells}}} " + "{n_fmt}B of {total_fmt}B, {rate_fmt}"
            if self._copy is not None:
                self._copy.update(done - self._copy.n)

    def _wipe(self) -> None:
        # The terminal may have written ^C behind the bar, where closing it does not reach.
        width = width_of(self._stream) - 1
        self._stream.write("\r" + " " * width + "\r")
        self._stream.flush()

    def _holds_lock(self) -> bool:
        # RLock has no public question for this; end() inside stage() must not wait for a ticker that waits for the lock.
        return getattr(self._lock, "_is_owned", lambda: True)() is True

    def _make_bar(self, total: float, *, unit: bool = False) -> Any:
        import tqdm

        tqdm.tqdm.monitor_interval = 0  # no thread that looks after stalled bars: we tick ourselves
        return tqdm.tqdm(
            total=total, file=self._stream, leave=False, ascii=False if self._utf8 else " #",
            dynamic_ncols=True, mininterval=0.1, unit="", unit_scale=unit, unit_divisor=1000,
        )  # fmt: skip

    def _tick(self) -> None:
        while not self._ended.wait(0.1):
            with self._lock:
                if self._bar is not None:
                    self._draw()

    def _draw(self) -> None:
        elapsed = time.monotonic() - self._began
        if self._expected:
            self._bar.n = min(elapsed, self._expected * 0.99)
            about = f"{elapsed:.1f} s, about {say_seconds(self._expected)} as last time"
        else:
            self._bar.n = min(len(self._stages), _STAGES)
            about = f"{elapsed:.1f} s"
        room = width_of(self._stream) - len(about) - 15
        bar = f"{{bar:{min(24, room)}}} " if room >= 4 else ""  # what it says comes before what it shows
        self._bar.bar_format = f"  {self._now:<10}" + bar + about
        self._bar.refresh()

    def _line(self, text: str) -> None:
        with self._lock:
            bars = [bar for bar in (self._bar, self._copy) if bar is not None]
            for bar in bars:
                bar.clear()
            write_line(self._stream, text)
            for bar in bars:
                bar.refresh()

    def _show_stages(self) -> None:
        total = self._stages[-1][1] or 1.0
        parts, before = [], 0.0
        for name, at in self._stages:
            took = max(0.0, at - before)
            before = max(before, at)
            if took >= 0.05:
                parts.append(f"{name} {proportion(took / total, self._utf8)} {took:.1f} s")
        for line in wrapped(parts, width_of(self._stream)):
            self._line(line)
