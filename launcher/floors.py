"""What is too old in an ISO: its age, and versions below the floors of floors.toml."""

from __future__ import annotations

import fnmatch
import re
import time
import tomllib
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

_DAY: Final = 86400
_PARTS: Final = re.compile(r"(\D*)(\d*)")


@dataclass(frozen=True)
class Floor:
    """The oldest version, in Debian's words, of the package that a pattern names, and why."""

    name: str
    package: str
    version: str
    reason: str


@dataclass(frozen=True)
class Below:
    """Something in an ISO that is older than its floor; `have` is empty when the manifest does not name it."""

    name: str
    have: str
    floor: str
    reason: str

    def __str__(self) -> str:
        if not self.have:
            return f"{self.name}: its version is not known (the ISO has no manifest that names it)"
        return f"{self.name} {self.have} is older than {self.floor} ({self.reason})"


@dataclass(frozen=True)
class Judgement:
    """What is to be said of an ISO. Days since it was built, None when that is not known; negative when the clock is behind."""

    built: str
    days: int | None
    old: bool
    below: tuple[Below, ...]


@cache
def data() -> tuple[int, tuple[Floor, ...]]:
    """The age from which an ISO is old, in days, and the floors."""
    values = tomllib.loads(Path(__file__).with_name("floors.toml").read_text(encoding="utf-8"))
    return int(values["old_after_days"]), tuple(Floor(**floor) for floor in values["floor"])


def judge(manifest: dict[str, Any], now: float | None = None) -> Judgement:
    """Hold an ISO's manifest against the floors, at `now` (seconds since the epoch)."""
    old_after, floors = data()
    built = str(manifest.get("built") or "")
    days = _days(built, time.time() if now is None else now)
    packages = {str(item.get("name")): str(item.get("version")) for item in manifest.get("packages") or []}
    below = []
    for floor in floors:
        have = [version for name, version in packages.items() if fnmatch.fnmatchcase(name, floor.package)]
        oldest = next((version for version in have if compare(version, floor.version) < 0), None)
        if oldest is not None or not have:
            below.append(Below(floor.name, oldest or "", floor.version, floor.reason))
    return Judgement(built, days, days is not None and days >= old_after, tuple(below))


def _days(built: str, now: float) -> int | None:
    try:
        return int((now - datetime.fromisoformat(built).timestamp()) // _DAY)
    except ValueError:
        return None


def compare(one: str, other: str) -> int:
    """Negative, zero or positive, as Debian orders versions: deb-version(7), "Sorting algorithm"."""
    for a, b in zip(_split(one), _split(other), strict=True):
        difference = _compare_part(a, b)
        if difference:
            return difference
    return 0


def _split(version: str) -> tuple[str, str, str]:
    """Epoch, upstream version, revision; each may be empty, which counts as 0."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return epoch, upstream, revision


def _compare_part(one: str, other: str) -> int:
    """Pairs of a text and a number, from the left: texts by _weight, numbers as numbers."""
    for (text, number), (text_other, number_other) in zip_longest(
        _PARTS.findall(one), _PARTS.findall(other), fillvalue=("", "")
    ):
        for a, b in zip_longest(text, text_other, fillvalue=""):
            difference = _weight(a) - _weight(b)
            if difference:
                return difference
        difference = int(number or 0) - int(number_other or 0)
        if difference:
            return difference
    return 0


def _weight(character: str) -> int:
    """ "~" before the end, the end before letters, letters before all else."""
    if character == "~":
        return -1
    if not character:
        return 0
    return ord(character) if character.isalpha() else ord(character) + 256
