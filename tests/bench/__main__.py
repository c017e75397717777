"""`python -m tests.bench [PART...] [--rounds N]`, with PYTHONPATH=iso: all parts unless some are named; results in build/.

Exit code 1: a goal was missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.bench import engine, ports, shares, start
from tests.bench.results import Results

BUILD: Final = Path(__file__).parent.parent.parent / "build"
PARTS: Final[dict[str, Callable[[Results, int, int], None]]] = {
    "start": start.measure,
    "engine": engine.measure,
    "ports": ports.measure,
    "shares": shares.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=5000, help="sequential calls, to see what grows")
    asked = parser.parse_args()
    missed = []
    for name in asked.parts or PARTS:
        results = Results(name)
        try:
            PARTS[name](results, asked.rounds, asked.calls)
        finally:
            results.write(BUILD)
        missed += [f"{name}: {row.name}, {row.goal}" for row in results.missed]
    for line in missed:
        print(f"MISSED  {line}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
