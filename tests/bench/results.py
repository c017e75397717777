"""The figures of one run: printed as they come, then written as JSON and drawn."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

HEAD: Final = f"{'median':<44}{'wherry':>12}{'other':>12}{'ratio':>8}   {'goal':<22}"


@dataclass(frozen=True)
class Row:
    """One comparison. `unit` is ms, s or MB/s; `ours` and `theirs` are all values measured, in the order of the rounds."""

    name: str
    against: str
    unit: str
    ours: list[float]
    theirs: list[float] = field(default_factory=list)
    goal: str = ""
    met: bool | None = None

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ours) / statistics.median(self.theirs) if self.theirs else None


class Results:
    """Rows and what the keeper cost while they were measured."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[Row] = []
        self.costs: dict[str, dict[str, Any]] = {}
        print(HEAD, flush=True)

    def add(self, row: Row) -> Row:
        self.rows.append(row)
        other = f"{statistics.median(row.theirs):>12.1f}" if row.theirs else f"{'':>12}"
        ratio = f"{row.ratio:>8.2f}" if row.ratio is not None else f"{'':>8}"
        met = {True: "met", False: "MISSED", None: ""}[row.met]
        name = f"{row.name}, {row.unit}" + (f" / {row.against}" if row.against else "")
        print(f"{name:<44}{statistics.median(row.ours):>12.1f}{other}{ratio}   {row.goal} {met}", flush=True)
        return row

    def cost(self, when: str, **values: Any) -> None:
        self.costs[when] = values
        print(f"{when:<44}{'  '.join(f'{name} {value}' for name, value in values.items())}", flush=True)

    def write(self, folder: Path) -> None:
        """NAME.json and NAME.png in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = [{**asdict(row), "ratio": row.ratio} for row in self.rows]
        about = {
            "title": self.title,
            "at": time.strftime("%Y-%m-%d"),
            "system": platform.platform(),
            "python": sys.version.split()[0],
        }
        (folder / f"bench-{self.title}.json").write_text(
            json.dumps({**about, "rows": rows, "costs": self.costs}, indent=1) + "\n"
        )
        draw([row for row in self.rows if row.theirs], folder / f"bench-{self.title}.png")


def draw(rows: Sequence[Row], file: Path) -> None:
    """One bar per comparison: the ratio of the medians, with each pair's own ratio as a dot."""
    import matplotlib as mpl  # what no test needs is installed by make bench only

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    if not rows:
        return
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.45 * len(rows)), layout="constrained")
    for place, row in enumerate(reversed(rows)):
        assert row.ratio is not None
        colour = {True: "tab:green", False: "tab:red", None: "tab:blue"}[row.met]
        axes.barh(place, row.ratio, color=colour, height=0.6, alpha=0.6)
        dots = [one / other for one, other in zip(row.ours, row.theirs, strict=False)]
        axes.plot(dots, [place] * len(dots), "k.", markersize=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{row.name} ({row.unit}) / {row.against}" for row in reversed(rows)])
    axes.set_xlabel("wherry / the other, medians; a dot is one pair; for ms and s less is better, for MB/s more")
    figure.savefig(file, dpi=120)
    plt.close(figure)


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def in_turn(rounds: int, ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Seconds of each, measured in turns, so that both meet the same weather; the first of each pair changes."""
    first: list[float] = []
    second: list[float] = []
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            (first if which == 0 else second).append(seconds(ours if which == 0 else theirs))
    return first, second
