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

COLOURS: Final = {True: "tab:green", False: "tab:red", None: "tab:blue"}  # of a goal: met, missed, none
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
        self.stages: list[tuple[str, float]] = []  # of a start: the name, and after how many seconds it was reached
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

    @property
    def missed(self) -> list[Row]:
        return [row for row in self.rows if row.met is False]

    def write(self, folder: Path) -> None:
        """bench-NAME.json and bench-NAME.png in the folder; and bench.json, of each part what was last measured."""
        folder.mkdir(parents=True, exist_ok=True)
        data = {
            "title": self.title,
            "at": time.strftime("%Y-%m-%d"),
            "system": platform.platform(),
            "python": sys.version.split()[0],
            "rows": [{**asdict(row), "ratio": row.ratio} for row in self.rows],
            "costs": self.costs,
            "stages": self.stages,
        }
        (folder / f"bench-{self.title}.json").write_text(json.dumps(data, indent=1) + "\n")
        together = folder / "bench.json"
        parts = json.loads(together.read_text()) if together.exists() else {}
        together.write_text(json.dumps({**parts, self.title: data}, indent=1) + "\n")
        draw(self.rows, self.stages, folder / f"bench-{self.title}.png")


def draw(rows: Sequence[Row], stages: Sequence[tuple[str, float]], file: Path) -> None:
    """One panel each of what was compared, of what stands alone, and of a start's stages; as far as there are any."""
    import matplotlib as mpl  # what no test needs is installed by make bench only

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    compared, alone = [row for row in rows if row.theirs], [row for row in rows if not row.theirs]
    panels = [
        (len(compared), lambda axes: _draw_compared(axes, compared[::-1])),
        (len(alone), lambda axes: _draw_alone(axes, alone[::-1])),
        (len(stages), lambda axes: _draw_stages(axes, stages)),
    ]
    panels = [(count, paint) for count, paint in panels if count]
    if not panels:
        return
    heights = [0.8 + 0.45 * count for count, _ in panels]
    figure, places = plt.subplots(
        len(panels), figsize=(9, 0.4 + sum(heights)), height_ratios=heights, layout="constrained", squeeze=False
    )
    for (_, paint), axes in zip(panels, places[:, 0], strict=True):
        paint(axes)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _draw_compared(axes: Any, rows: Sequence[Row]) -> None:
    """The ratio of the medians as a bar, each pair's own ratio as a dot."""
    for place, row in enumerate(rows):
        axes.barh(place, row.ratio, color=COLOURS[row.met], height=0.6, alpha=0.6)
        dots = [one / other for one, other in zip(row.ours, row.theirs, strict=False)]
        axes.plot(dots, [place] * len(dots), "k.", markersize=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{row.name} ({row.unit}) / {row.against}" for row in rows])
    axes.set_xlabel("wherry / the other, medians; a dot is one pair\nfor ms and s less is better, for MB/s more")


def _draw_alone(axes: Any, rows: Sequence[Row]) -> None:
    """The median as a bar with its number, each value as a dot."""
    values = [value for row in rows for value in row.ours]
    wide = max(values) > 20 * min(values)
    axes.set_xscale("log" if wide else "linear")
    for place, row in enumerate(rows):
        median = statistics.median(row.ours)
        axes.barh(place, median, color=COLOURS[row.met], height=0.6, alpha=0.6)
        axes.plot(row.ours, [place] * len(row.ours), "k.", markersize=3)
        axes.annotate(f"{median:.0f} {row.unit}", (max(row.ours), place), (6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.margins(x=0.15)
    axes.set_xlabel(f"median; a dot is one value{'; the scale is logarithmic' if wide else ''}")


def _draw_stages(axes: Any, stages: Sequence[tuple[str, float]]) -> None:
    before = 0.0
    for place, (_, at) in enumerate(stages):
        axes.barh(place, at - before, left=before, color=COLOURS[None], height=0.6, alpha=0.6)
        axes.annotate(f"+{at - before:.1f} s", (at, place), (6, 0), textcoords="offset points", va="center")
        before = at
    axes.set_yticks(range(len(stages)), [name for name, _ in stages])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("stages of the last start, s")


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


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
