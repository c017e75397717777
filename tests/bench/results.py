"""The figures of one run: printed as they come, then merged into a file with those of the other parts.

results.json: {"version": 1, "parts": {NAME: {"title", "at", "seconds", "rounds", "machine": {...}, "rows": [...], "costs",
"stages", "growth", "failed"}}}. Of each part what was last measured; a part that broke off has its words in "failed".
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

VERSION: Final = 1
# In the file, in plots and in the table; the order of a whole run as well.
PARTS: Final = (
    "cold", "suspend", "cli", "idle", "disk", "containers", "machines", "published", "engine", "ports", "shares",
)  # fmt: skip
HEAD: Final = f"{'median':<54}{'wherry':>12}{'other':>12}{'ratio':>8}   {'goal':<22}"
MORE_IS_BETTER: Final = frozenset({"MB/s"})


@dataclass(frozen=True)
class Row:
    """One comparison: all values measured, in the order of the rounds; `against` names the floor or peer.

    `used` is how much of the goal was taken: 1 just meets it, less is better, whatever the unit.
    """

    name: str
    against: str
    unit: str
    ours: list[float]
    theirs: list[float] = field(default_factory=list)
    goal: str = ""
    met: bool | None = None
    used: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.ours)

    @property
    def ratio(self) -> float | None:
        if not self.theirs or not statistics.median(self.theirs):
            return None
        return self.median / statistics.median(self.theirs)

    def at_most(self, limit: float, what: str = "", *, also: bool = True, alone: bool = False) -> Row:
        """With a goal: of the ratio when there is something to compare with and it does not stand `alone`, else of the median.
        `also`: what else must hold."""
        of_median = alone or self.ratio is None
        value = self.median if self.ratio is None or alone else self.ratio
        words = what or f"at most {limit:g}{f' {self.unit}' if of_median else 'x'}"
        return replace(self, goal=words, met=value <= limit and also, used=value / limit)

    def at_least(self, limit: float, what: str = "") -> Row:
        value = self.median if self.ratio is None else self.ratio
        return replace(self, goal=what or f"at least {limit:g}x", met=value >= limit, used=limit / value)

    def to_json(self) -> dict[str, Any]:
        other = statistics.median(self.theirs) if self.theirs else None
        return dict(rounded({**asdict(self), "median": self.median, "other": other, "ratio": self.ratio}))


def rounded(value: Any) -> Any:
    """Four digits are more than any of these measurements has."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


class Results:
    """Rows of one part, what the keeper cost while they were measured, the stages of a start, and curves."""

    def __init__(self, title: str, rounds: int = 0, accel: str = "auto") -> None:
        self.title, self.rounds = title, rounds
        self.accel = accel  # the setting of the machines that are measured
        self.rows: list[Row] = []
        self.costs: dict[str, dict[str, Any]] = {}
        self.stages: dict[str, list[tuple[str, float]]] = {}  # of a start: the name, and after how many seconds it was reached
        self.growth: list[dict[str, Any]] = []
        self.machine: dict[str, Any] = {}
        self.failed = ""
        self._began = time.monotonic()
        print(f"\n{title}\n{HEAD}", flush=True)

    def add(self, row: Row) -> Row:
        self.rows.append(row)
        other = f"{statistics.median(row.theirs):>12.2f}" if row.theirs else f"{'':>12}"
        ratio = f"{row.ratio:>8.2f}" if row.ratio is not None else f"{'':>8}"
        met = {True: "met", False: "MISSED", None: ""}[row.met]
        name = f"{row.name}, {row.unit}" + (f" / {row.against}" if row.against else "")
        print(f"{name:<54}{row.median:>12.2f}{other}{ratio}   {row.goal} {met}", flush=True)
        return row

    def cost(self, when: str, **values: Any) -> None:
        self.costs[when] = values
        print(f"{when:<44}{'  '.join(f'{name} {value}' for name, value in values.items())}", flush=True)

    def timelines(self, name: str, timelines: Sequence[Sequence[tuple[str, float]]]) -> None:
        """The median moment of each stage that all of these starts have."""
        every = [dict(timeline) for timeline in timelines]
        common = [stage for stage, _ in timelines[0] if all(stage in one for one in every)]
        moments = ((stage, statistics.median(one[stage] for one in every)) for stage in common)
        self.stages[name] = sorted(moments, key=lambda stage: stage[1])
        self.cost(f"stages, {name}", **{stage: round(at, 2) for stage, at in self.stages[name]})

    def curve(self, of: str, what: str, unit: str, points: Sequence[tuple[int, list[float]]]) -> None:
        """How `what` grows with the number of `of`."""
        self.growth.append({"of": of, "what": what, "unit": unit, "points": [[count, values] for count, values in points]})
        said = {str(count): f"{statistics.median(values):.1f}" for count, values in points}
        self.cost(f"{what}, {unit}, by {of}", **said)

    @property
    def missed(self) -> list[Row]:
        return [row for row in self.rows if row.met is False]

    def to_json(self) -> dict[str, Any]:
        data = {
            "title": self.title,
            "at": time.strftime("%Y-%m-%d"),
            "seconds": round(time.monotonic() - self._began),
            "rounds": self.rounds,
            "machine": self.machine,
            "rows": [row.to_json() for row in self.rows],
            "costs": self.costs,
            "stages": self.stages,
            "growth": self.growth,
            "failed": self.failed,
        }
        return dict(rounded(data))

    def write(self, file: Path) -> None:
        """Into the file, in place of what this part had there; a part that measured nothing leaves it as it is."""
        if not self.rows and not self.growth:
            return
        parts = {**(load(file)["parts"] if file.exists() else {}), self.title: self.to_json()}
        parts = {
            name: parts[name] for name in sorted(parts, key=lambda name: PARTS.index(name) if name in PARTS else len(PARTS))
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        new.write_text(json.dumps({"version": VERSION, "parts": parts}, indent=1) + "\n")
        new.replace(file)


def load(file: Path) -> dict[str, Any]:
    """Raises ValueError for a file of another kind."""
    data = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"{file} has no results of this bench")
    return data


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def repeated(results: Results, rounds: int, one: Callable[[], object], taken: dict[str, list[Any]]) -> None:
    """So many rounds, each of which adds one value to each list; when one breaks off, the lists have the whole ones only."""
    results.rounds = 0
    try:
        for _ in range(rounds):
            one()
            results.rounds += 1
    finally:
        for values in taken.values():
            del values[results.rounds :]


def in_turn(
    rounds: int, ours: Callable[[], object], theirs: Callable[[], object], before: Callable[[], object] = lambda: None
) -> tuple[list[float], list[float]]:
    """Seconds of each, measured in turns, so that both meet the same weather; the first of each pair changes. What is done
    `before` each of them is not measured."""
    first: list[float] = []
    second: list[float] = []
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            before()
            (first if which == 0 else second).append(seconds(ours if which == 0 else theirs))
    return first, second
