"""How core code tells its story. Core never prints: it calls a Reporter, the CLI renders."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives what happens, in order, from one thread."""

    def step(self, name: str, text: str) -> None:
        """A part is done or known, e.g. ("iso", "wherry 0.1.0 amd64, 118 MB")."""

    def stage(self, name: str, seconds: float) -> None:
        """The guest reached a stage; seconds since the start began."""

    def progress(self, name: str, done: int, total: int) -> None:
        """A long work is at `done` of `total` (bytes); done == total ends it."""

    def note(self, text: str) -> None:
        """Something worth a line that needs no action."""

    def warn(self, text: str) -> None:
        """Something that the user should act on or know before it hurts."""


class SilentReporter:
    """Says nothing."""

    def step(self, name: str, text: str) -> None: ...
    def stage(self, name: str, seconds: float) -> None: ...
    def progress(self, name: str, done: int, total: int) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
