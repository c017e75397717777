"""Whether a run is worse than an earlier one: `python -m tests.bench.gate NEW OLD [--margin 0.3]`; exit code 1 if it is.

Ratios are compared, each to the floor or peer of its own run, never seconds: those are another computer's, or another day's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from tests.bench.results import MORE_IS_BETTER, load

MARGIN: Final = 0.3  # of the ratio: two runs on the same idle computer differ by less


def compare(new: dict[str, Any], old: dict[str, Any], margin: float) -> list[str]:
    """What got worse by more than the margin, broke off, or is no longer measured; only of parts that the new run has."""
    said = []
    for name, part in new["parts"].items():
        if part["failed"]:
            said.append(f"{name} broke off: {part['failed']}")
        rows = {key(row): row for row in part["rows"]}
        for before in old["parts"].get(name, {"rows": []})["rows"]:
            now = rows.get(key(before))
            if now is None:
                if not part["failed"] and before["ratio"] is not None:
                    said.append(f"{name}: {label(before)} is no longer measured")
            elif (factor := worse(now, before)) is not None and factor > 1 + margin:
                ratios = f"{before['ratio']:.2f} before, {now['ratio']:.2f} now"
                said.append(f"{name}: {label(before)} is {factor:.2f} times as bad ({ratios})")
    return said


def key(row: dict[str, Any]) -> tuple[str, str]:
    return row["name"], row["against"]


def label(row: dict[str, Any]) -> str:
    return f"{row['name']} against {row['against']}"


def worse(now: dict[str, Any], before: dict[str, Any]) -> float | None:
    """By which factor; None for what has no ratio."""
    if not now["ratio"] or not before["ratio"]:
        return None
    factor = float(now["ratio"] / before["ratio"])
    return 1 / factor if now["unit"] in MORE_IS_BETTER else factor


def told(new: dict[str, Any], old: dict[str, Any], margin: float) -> int:
    """Says what got worse, and how many rows were compared; the exit code."""
    said = compare(new, old, margin)
    for line in said:
        print(f"WORSE   {line}", flush=True)
    had = {(name, key(row)) for name, part in old["parts"].items() for row in part["rows"]}
    count = sum(
        (name, key(row)) in had and row["ratio"] is not None for name, part in new["parts"].items() for row in part["rows"]
    )
    print(f"{count} ratios compared, {len(said)} worse by more than {margin:.0%}", flush=True)
    return 1 if said or not count else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gate", description=__doc__)
    parser.add_argument("new", type=Path)
    parser.add_argument("old", type=Path)
    parser.add_argument("--margin", type=float, default=MARGIN)
    asked = parser.parse_args()
    return told(load(asked.new), load(asked.old), asked.margin)


if __name__ == "__main__":
    sys.exit(main())
