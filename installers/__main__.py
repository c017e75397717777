"""`python -m installers [build|lock]`: everything that installs wherry, in dist/."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from installers import bill, lock, project, targets
from installers.context import Context, Made, prepare
from installers.linux import deb
from installers.tools import BuildError, say

KINDS: Final[dict[str, Callable[[Context], list[Made]]]] = {"deb": deb.build_all}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m installers", description=__doc__)
    parser.add_argument("verb", choices=("build", "lock"), nargs="?", default="build")
    parser.add_argument("--only", action="append", choices=sorted(KINDS), help="by default all of them")
    parser.add_argument("--output", type=Path, default=project.ROOT / "dist", metavar="DIR")
    parser.add_argument(
        "--work", type=Path, default=project.ROOT / "build/installers", metavar="DIR", help="kept between builds"
    )
    parser.add_argument("--quick", action="store_true", help="hardly compressed, for tests")
    return parser.parse_args(argv)


def build(context: Context, kinds: Sequence[str]) -> list[Path]:
    """The files that were written, with the SBOM and the sums. Raises BuildError."""
    made: list[Made] = []
    for kind in kinds:
        for item in KINDS[kind](context):
            say(f"{item.path.name}, {item.path.stat().st_size / 1e6:.1f} MB")
            made.append(item)
    files = [item.path for item in made]
    files.append(bill.write_bill(made, context.version, context.epoch, context.output))
    return [*files, bill.write_sums(files, context.output)]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 after one clear message."""
    options = parse(argv)
    try:
        if options.verb == "lock":
            lock.renew(targets.load())
        else:
            context = prepare(targets.load(), options.work, options.output, quick=options.quick)
            build(context, options.only or list(KINDS))
    except BuildError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
