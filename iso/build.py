"""Builds the Wherry guest image: python3 iso/build.py --arch amd64|arm64.

Needs mmdebstrap, dpkg-deb and Python 3.11 on the host, and cyclonedx-python-lib for the SBOM: every tool that writes bytes of
the image comes from a Debian 13 tree that the build makes for itself.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from builder.log import BuildError, say
from builder.pipeline import Options, build, version


def parse(argv: list[str]) -> Options:
    """The command line as Options."""
    parser = argparse.ArgumentParser(prog="iso/build.py", description="Builds the Wherry guest image.")
    parser.add_argument("--arch", choices=("amd64", "arm64"), default="amd64")
    parser.add_argument("--output", type=Path, default=Path("build"), metavar="DIR")
    parser.add_argument("--tools", type=Path, metavar="DIR", help="where the tools tree is kept (the output folder)")
    parser.add_argument("--suite-engine", choices=("testing", "stable"), help="where the engine's packages come from")
    parser.add_argument(
        "--mirror", action="append", default=[], metavar="URL", help="instead of mmdebstrap's own; a `deb` line too"
    )
    parser.add_argument("--version", default=version(), metavar="TEXT", help="wherry's, for the manifest (%(default)s)")
    parser.add_argument("--lock-update", action="store_true", help="write all locks anew, of the newest packages, and end")
    parser.add_argument("--locked", action="store_true", help="a release: exactly what the locks say, or an error")
    parser.add_argument("--fast", action="store_true", help="light compression, for work on the image itself")
    parser.add_argument("--force", action="store_true", help="build even if nothing changed")
    args = parser.parse_args(argv)
    return Options(
        arch=args.arch,
        output=args.output.absolute(),
        tools=(args.tools or args.output).absolute(),
        engine_suite=args.suite_engine,
        mirrors=tuple(args.mirror),
        version=args.version,
        lock_update=args.lock_update,
        locked=args.locked,
        fast=args.fast,
        force=args.force,
    )


def main(argv: list[str]) -> int:
    """Exit code 0, or 1 after one clear message."""
    try:
        build(parse(argv))
    except BuildError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
