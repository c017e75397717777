"""The plots of results.json, as SVG: how a start passes, what was reached of the goals, how things grow.

The same results give the same bytes (with the same matplotlib): no date, and ids that are hashes with a fixed salt.
"""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

# Okabe and Ito's colours, which people who see few colours tell apart.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"
STAGES: Final = {
    "qemu": "QEMU runs",
    "memory": "saved memory is loaded",
    "kernel": "kernel has started",
    "root": "root is mounted",
    "disk": "data disk is mounted",
    "ssh": "sshd answers",
    "engine": "engine answers",
    "hello": "hello image is there",
    "ready": "keeper is connected: ready",
    "returned": "command: its start, the keeper's, its end",
    "empty": "QEMU, empty guest, power off",
}
KINDS: Final = {"engine": "socket: ", "ports": "ports: ", "shares": "share: "}  # parts whose rows need a word more
LONGEST: Final = 2.0  # times the goal: a bar that is longer says nothing more
SETTINGS: Final[dict[Any, Any]] = {
    "svg.hashsalt": "wherry",
    "svg.fonttype": "path",  # the same letters everywhere
    "font.family": "DejaVu Sans",  # matplotlib brings it along
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
Parts = dict[str, dict[str, Any]]


def everything(results: dict[str, Any], folder: Path) -> list[Path]:
    """Those plots for which there is something; the files."""
    import matplotlib as mpl  # what no test needs is installed by make bench only

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawings: dict[str, Callable[[Any, Parts], Any]] = {"start": start, "goals": goals, "growth": growth}
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, paint in drawings.items():
        with mpl.rc_context(SETTINGS):
            figure = paint(plt, results["parts"])
            if figure is None:
                continue
            file = folder / f"{name}.svg"
            figure.savefig(file, metadata={"Date": None, "Creator": None})
            plt.close(figure)
        # git keeps no spaces at the ends of lines that somebody would have to explain.
        file.write_text("".join(f"{line.rstrip()}\n" for line in file.read_text().splitlines()))
        written.append(file)
    return written


def where(part: dict[str, Any]) -> str:
    """On what it was measured."""
    machine = part["machine"]
    if not machine:
        return str(part["at"])
    accelerator = "software emulation (TCG)" if machine["accelerator"] == "tcg" else machine["accelerator"].upper()
    return (
        f"{machine['processor']}, {machine['cpus']} CPUs; {machine['system'].split()[0]}; QEMU {machine['qemu']},"
        f" {accelerator}; guest: {machine['guest']}; wherry {machine['wherry']}; {part['at']}"
    )


def medians(part: dict[str, Any]) -> str:
    return f"Medians of {part['rounds']} rounds" if part["rounds"] > 1 else "One round"


def headed(figure: Any, title: str, part: dict[str, Any], more: str) -> None:
    """Title, what was measured and how, and on what; above the panels."""
    width = int(figure.get_figwidth() * 14.6)
    lines = textwrap.wrap(more, width) + textwrap.wrap(where(part), width)
    height = figure.get_figheight()
    figure.text(0.015, 1 - 0.14 / height, title, size=14, weight="bold", va="top")
    figure.text(0.015, 1 - 0.45 / height, "\n".join(lines), size=9, color="#444444", va="top", linespacing=1.4)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - (0.55 + 0.19 * len(lines)) / height))


def start(plt: Any, parts: Parts) -> Any:
    """One bar for each stage, the floor below with the same scale, and a resume."""
    cold, resume = parts.get("cold"), parts.get("suspend")
    panels: list[tuple[str, list[tuple[str, float]], str]] = []
    if cold and "cold" in cold["stages"]:
        panels.append(("cold start", cold["stages"]["cold"], BLUE))
        if "floor" in cold["stages"]:
            panels.append(("its floor", cold["stages"]["floor"], GREY))
    if resume and "resume" in resume["stages"]:
        panels.append(("resume", resume["stages"]["resume"], GREEN))
    if not panels:
        return None
    heights = [len(stages) for _, stages, _ in panels]
    figure, places = plt.subplots(
        len(panels), figsize=(10, 1.9 + 0.34 * sum(heights) + 0.25 * len(panels)), height_ratios=heights, sharex=True,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for (name, stages, colour), axes in zip(panels, places[:, 0], strict=True):
        bars(axes, stages, colour, "dockerd, from its start until it answers" if name == "its floor" else STAGES["engine"])
        axes.set_ylabel(name, weight="bold", rotation=0, ha="right", va="center", labelpad=8)
    places[-1, 0].set_xlabel("seconds")
    longest = max(stages[-1][1] for _, stages, _ in panels)
    places[0, 0].set_xlim(0, longest * 1.15)
    part = cold or resume
    assert part is not None
    rounds = f"{medians(part)}. A bar is the time that passed until this stage was reached"
    headed(figure, "A start, stage by stage", part, f"{rounds}; the floor is what no start can do without.")
    return figure


def bars(axes: Any, stages: list[tuple[str, float]], colour: str, engine: str) -> None:
    before = 0.0
    for place, (_, at) in enumerate(stages):
        axes.barh(place, at - before, left=before, color=colour, height=0.62)
        axes.annotate(f"+{at - before:.2f} s", (at, place), (5, 0), textcoords="offset points", va="center", size=9)
        before = at
    names = [engine if name == "engine" else STAGES.get(name, name) for name, _ in stages]
    axes.set_yticks(range(len(stages)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(stages) - 0.4, -0.6)
    axes.grid(axis="x")


def goals(plt: Any, parts: Parts) -> Any:
    """How much of each goal is used: what ends left of the line meets it."""
    rows = [(KINDS.get(name, "") + row["name"], row) for name, part in parts.items() for row in part["rows"] if row["goal"]]
    rows = [(name, row) for name, row in rows if row["used"] is not None]
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(10, 2.1 + 0.31 * len(rows)), layout="constrained")
    for place, (_, row) in enumerate(rows):
        missed = row["met"] is False
        long = min(max(row["used"], 0.004), LONGEST)
        axes.barh(
            place, long, height=0.62, color=RED if missed else BLUE, hatch="///" if missed else None,
            edgecolor="white", linewidth=0,
        )  # fmt: skip
        # Right of the line, which would else go through the words.
        axes.annotate(measured(row), (max(long, 1), place), (6, 0), textcoords="offset points", va="center", size=8.5)
    axes.axvline(1, color="black", linewidth=1.2)
    axes.annotate("goal", (1, -0.75), (0, 2), textcoords="offset points", ha="center", va="bottom", size=9, weight="bold")
    axes.set_yticks(range(len(rows)), [textwrap.shorten(name, 60) for name, _ in rows], size=9)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.7)
    widest = min(LONGEST, max(1.0, *(row["used"] for _, row in rows)))
    axes.set_xlim(0, widest * 1.85)
    marks = [mark / 2 for mark in range(int(widest * 2) + 1)]
    axes.set_xticks(marks, [f"{mark:.0%}" for mark in marks])
    axes.set_xlabel("of the goal used (less is better)", loc="left")
    axes.grid(axis="x")
    part = parts.get("cold") or next(part for part in parts.values() if part["rows"])
    more = f"{medians(part)}. Blue meets its goal; red and hatched does not. No bar is longer than {LONGEST:.0%}."
    headed(figure, "What was measured, against its goal", part, more)
    return figure


def measured(row: dict[str, Any]) -> str:
    """The numbers, and the goal that one of them is about."""
    value = f"{number(row['median'])} {row['unit']}"
    ratio = f", {number(row['ratio'])}x" if row["ratio"] is not None else ""
    return f"{value}{ratio}; goal: {row['goal']}"


def number(value: float) -> str:
    """Three digits, none of them behind a thousand's comma."""
    if 0 < value < 0.1:
        return f"{value:.2g}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def growth(plt: Any, parts: Parts) -> Any:
    """A panel for each curve; a row for each thing that there are more of."""
    curves = [curve for part in parts.values() for curve in part["growth"]]
    kinds = list(dict.fromkeys(curve["of"] for curve in curves))
    if not kinds:
        return None
    columns = max(sum(curve["of"] == kind for curve in curves) for kind in kinds)
    figure, places = plt.subplots(
        len(kinds), columns, figsize=(3.1 * columns, 1.2 + 2.5 * len(kinds)), layout="constrained", squeeze=False
    )
    for row, kind in zip(places, kinds, strict=True):
        of_kind = [curve for curve in curves if curve["of"] == kind]
        for axes, curve in zip(row, of_kind, strict=False):
            one_curve(axes, curve)
        for axes in row[len(of_kind) :]:
            axes.set_axis_off()
    part = next(part for part in parts.values() if part["growth"])
    more = "A line joins medians, a dot is one value; each axis of values begins at 0, that of numbers is logarithmic."
    headed(figure, "How it grows", part, more)
    return figure


def one_curve(axes: Any, curve: dict[str, Any]) -> None:
    counts = [count for count, _ in curve["points"]]
    medians = [statistics.median(values) for _, values in curve["points"]]
    axes.plot(counts, medians, color=BLUE, linewidth=2, marker="o", markersize=5)
    for count, values in curve["points"]:
        if len(values) > 1:
            axes.plot([count] * len(values), values, ".", color=ORANGE, markersize=4, zorder=3)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count}" for count in counts])
    axes.minorticks_off()
    axes.set_xlim(counts[0] / 1.5, counts[-1] * 1.5)
    axes.set_ylim(0, 1.25 * max(value for _, values in curve["points"] for value in values))
    for count, median in zip(counts, medians, strict=True):
        axes.annotate(number(median), (count, median), (0, 7), textcoords="offset points", ha="center", size=9)
    axes.set_title(f"{curve['what']}, {curve['unit']}", size=10, loc="left")
    axes.set_xlabel(curve["of"])
    axes.grid(axis="y")
