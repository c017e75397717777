"""What `doctor` finds: one line each, ok, a warning or a failure, with one next step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from launcher.errors import WherryError
from launcher.machine.redact import redact

_REPORT = "wherry doctor --bundle FILE, for a report"

Status = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `step` is what to do next, empty when there is nothing to do."""

    name: str
    status: Status
    text: str
    step: str = ""


def ok(name: str, text: str) -> Check:
    return Check(name, "ok", redact(text))


def warning(name: str, text: str, step: str) -> Check:
    return Check(name, "warning", redact(text), redact(step))


def failure(name: str, text: str, step: str) -> Check:
    return Check(name, "failure", redact(text), redact(step))


def guarded(name: str, look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The checks of `look`; what it raises is a failure of its own, and the doctor goes on."""
    try:
        yield from look()
    except WherryError as error:
        yield failure(name, error.message, error.hint or _REPORT)
    except Exception as error:  # a mistake of ours must not hide the other findings
        yield failure(
            name, f"cannot be looked at: {type(error).__name__}: {error}", "wherry doctor --bundle FILE, for a report"
        )
