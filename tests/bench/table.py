"""The README's table of bench/results.json: `python -m tests.bench.table [FILE]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from tests.bench.draw import medians, number, where
from tests.bench.results import load

RESULTS: Final = Path(__file__).parent.parent.parent / "bench" / "results.json"
PARTS: Final = ("cold", "suspend", "cli", "idle", "disk", "containers", "machines", "published")
HEAD: Final = ("| what | median | floor or peer | ratio | goal |", "|---|---|---|---|---|")


def table(results: dict[str, Any]) -> str:
    """Markdown: on what it was measured, and a line for each row of speed and cost; those of socket, ports and shares are told
    where the README tells of them."""
    parts = [results["parts"][name] for name in PARTS if name in results["parts"]]
    lines = [line(row) for part in parts for row in part["rows"]]
    if not lines:
        return ""
    return "\n".join([f"{medians(parts[0])}; {where(parts[0])}.", "", *HEAD, *lines]) + "\n"


def line(row: dict[str, Any]) -> str:
    other = f"{row['against']}: {number(row['other'])} {row['unit']}" if row["theirs"] else ""
    ratio = number(row["ratio"]) if row["ratio"] is not None else ""
    goal = row["goal"] + {True: "", False: " (**missed**)", None: ""}[row["met"]]
    return f"| {row['name']} | {number(row['median'])} {row['unit']} | {other} | {ratio} | {goal} |"


if __name__ == "__main__":
    print(table(load(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)), end="")
