"""What the guest says on its console while it starts and stops, and how long one waits for the next word.

The lines are those of provisioning/README.md. Time runs out on lack of progress, never on a fixed total.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from launcher.errors import NoProgress, Refused, WherryError

# Order, what each waits for, and what to look at when it does not come.
STAGES: Final = ("kernel", "root", "disk", "ssh", "engine", "hello", "ready")
_MISSING: Final = {
    "kernel": ("the kernel did not start", "wherry logs serial"),
    "root": ("the image's root could not be mounted", "The ISO may be damaged: wherry logs serial"),
    "disk": ("the data disk was not mounted", "wherry logs serial"),
    "ssh": ("the guest's SSH server did not start", "wherry logs serial"),
    "engine": ("the Docker Engine did not answer", "wherry logs engine"),
    "hello": ("the hello image was not loaded", "wherry logs engine"),
    "ready": ("the guest did not become ready", "wherry logs keeper"),
}

_LINE = re.compile(r"wherry-(?P<kind>stage|fail|note|stop) (?P<name>[a-z0-9.-]+)(?: (?P<text>.*))?")
_PANIC = re.compile(r"Kernel panic - not syncing|\bOops: |general protection fault|invalid opcode:")


@dataclass(frozen=True)
class Line:
    """One line for us: kind is stage, fail, note or stop."""

    kind: str
    name: str
    text: str


def parse(line: str) -> Line | None:
    """The message in a console line, or None for the kernel's and everybody else's."""
    match = _LINE.fullmatch(line.strip())
    return Line(match["kind"], match["name"], match["text"] or "") if match else None


def is_panic(line: str) -> bool:
    return _PANIC.search(line) is not None


# Notes of the guest that the user should act on, and what they are about in the user's words.
WARNINGS: Final = {
    "engine-config": "[engine] in machine.toml",
    "disk": "the data disk",
    "hello": "the hello image",
    "share": "a shared folder",
    "stop": "while stopping",
}


def note(line: Line) -> str:
    """A note of the guest as a sentence for the user."""
    return f"{WARNINGS.get(line.name, line.name)}: {line.text}"


@dataclass(frozen=True)
class Patience:
    """Seconds without a word after which a start is given up: until the first stage, and between later ones."""

    first: float
    later: float


def patience(accel: str) -> Patience:
    """Hardware starts the kernel in under a second; a guest that is silent for 20 s there will stay silent. Under emulation
    dockerd alone is silent for 10-30 s, and several times that on a busy computer."""
    return Patience(first=180, later=300) if accel == "tcg" else Patience(first=20, later=120)


def next_stage(reached: list[str]) -> str:
    """The first stage that has not come."""
    return next((stage for stage in STAGES if stage not in reached), "ready")


def stalled(reached: list[str], waited: float, tail: str) -> NoProgress:
    what, hint = _MISSING[next_stage(reached)]
    return NoProgress(f"{what}: no progress for {waited:.0f} s.", hint=hint, detail=tail or None)


DAMAGED_WORDS: Final = "the data disk is damaged"
# What the guest says of a data disk that it does not use, and what helps. Nothing was written to it.
_DISK: Final = {
    "disk-foreign": (
        "the data disk is not one that wherry made: {text}. It was not touched.",
        "Put the machine's own data.qcow2 back, or take this one away: wherry repair --new-disk {name} makes an empty one.",
    ),
    "disk-layout": ("{text}. It was not touched.", "wherry upgrade {name}"),
    "disk-damaged": (
        f"{DAMAGED_WORDS}: {{text}}. It is not mounted.",
        "wherry repair {name} mends it, wherry repair --read-only {name} lets you copy from it first.",
    ),
}


def failed(line: Line, tail: str, machine: str) -> WherryError:
    """The guest said itself that it cannot go on. Refused where it is for the sake of the data."""
    if line.name in _DISK:
        message, hint = _DISK[line.name]
        return Refused(message.format(text=line.text), hint=hint.format(name=machine), detail=tail or None)
    return WherryError(f"the machine cannot start: {line.name}: {line.text}", hint="wherry logs serial", detail=tail or None)
