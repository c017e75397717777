"""`python -m tests.bench [PART...] [--rounds N] [--quick] [--check FILE]`, with PYTHONPATH=iso.

All parts unless some are named; results and plots in bench/, where each part replaces what it had there. With --check they go
to build/bench/ instead, and their ratios are compared with the file's. Exit code 1: a goal was missed or a part broke off; with
--check: a ratio got worse or a part broke off.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.bench import cli, cold, draw, engine, gate, growth, ports, rest, shares, suspend
from tests.bench.results import Results, load

ROOT: Final = Path(__file__).parent.parent.parent
BENCH: Final = ROOT / "bench"
BUILD: Final = ROOT / "build" / "bench"
PARTS: Final[dict[str, Callable[[Results, int, int], None]]] = {
    "cold": cold.measure,
    "suspend": suspend.measure,
    "cli": cli.measure,
    "idle": rest.idle,
    "disk": rest.disk,
    "containers": growth.containers,
    "machines": growth.machines,
    "published": growth.ports,
    "engine": engine.measure,
    "ports": ports.measure,
    "shares": shares.measure,
}
QUICK: Final = ("cold", "suspend", "cli")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, help="of each part; 5, or 2 with --quick")
    parser.add_argument("--calls", type=int, default=5000, help="sequential calls, to see what grows")
    parser.add_argument("--accel", default="auto", help="the machines' setting")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)} only, unless parts are named")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results and plots go, instead of bench/")
    parser.add_argument("--check", type=Path, metavar="FILE", help="results of an earlier run, for example bench/results.json")
    parser.add_argument("--margin", type=float, default=gate.MARGIN, help="by which a ratio may be worse; %(default)s")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: {', '.join(PARTS)}")
    if asked.check and asked.out and asked.check.resolve() == (asked.out / "results.json").resolve():
        parser.error("--out is where the file to compare with is: it would be replaced")
    asked.parts = asked.parts or list(QUICK if asked.quick else PARTS)
    asked.rounds = asked.rounds or (2 if asked.quick else 5)
    return asked


def measured(name: str, asked: argparse.Namespace, file: Path) -> Results:
    """One part, written; one that breaks off leaves the others theirs."""
    results = Results(name, asked.rounds, asked.accel)
    try:
        PARTS[name](results, asked.rounds, asked.calls)
    except Exception as error:
        traceback.print_exc()
        results.failed = f"{type(error).__name__}: {error}"[:300]
    except KeyboardInterrupt:
        results.failed = "interrupted"
        raise
    finally:
        results.write(file)
    return results


def main() -> int:
    asked = parsed()
    folder = asked.out or (BUILD if asked.check else BENCH)
    file = folder / "results.json"
    if asked.check:
        before = load(asked.check)
        file.unlink(missing_ok=True)  # what is compared is this run, not what an earlier one left
    problems = []
    for name in asked.parts:
        results = measured(name, asked, file)
        problems += [f"FAILED  {name}: {results.failed}"] if results.failed else []
        problems += [f"MISSED  {name}: {row.name}, {row.goal}" for row in results.missed]
    if file.exists():
        draw.everything(load(file), folder)
    for line in problems:
        print(line, flush=True)
    if not asked.check:
        return 1 if problems else 0
    # A goal that was missed before as well is no regression.
    failed = any(line.startswith("FAILED") for line in problems)
    return max(int(failed), gate.told(load(file), before, asked.margin) if file.exists() else 1)


if __name__ == "__main__":
    sys.exit(main())
