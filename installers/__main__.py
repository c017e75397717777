"""`python -m installers [build|lock|pin FILE...]`: everything that installs wherry, in dist/."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from installers import bill, inputs, lock, project, targets
from installers.context import Context, Made, prepare
from installers.linux import deb
from installers.macos import flatpkg, formula
from installers.tools import BuildError, say
from installers.windows import manifests, msi, setup

KINDS: Final[dict[str, Callable[[Context], list[Made]]]] = {
    "deb": deb.build_all,
    "pkg": flatpkg.build_all,
    "brew": formula.build_all,
    "setup": setup.build_all,
    "msi": msi.build_all,
    "manifests": manifests.build_all,  # of what setup has written
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m installers", description=__doc__)
    parser.add_argument("verb", choices=("build", "lock", "pin"), nargs="?", default="build")
    parser.add_argument(
        "files", type=Path, nargs="*", metavar="FILE", help="of pin: archives whose SHA-256 goes to inputs.toml"
    )
    parser.add_argument("--only", action="append", choices=sorted(KINDS), help="by default all of them")
    parser.add_argument("--output", type=Path, default=project.ROOT / "dist", metavar="DIR")
    parser.add_argument(
        "--work", type=Path, default=project.ROOT / "build/installers", metavar="DIR", help="kept between builds"
    )
    parser.add_argument("--python", action=_Places, default={}, metavar="TARGET=PLACE", help="the Python that goes in")
    parser.add_argument("--qemu", action=_Places, default={}, metavar="TARGET=PLACE", help="the QEMU that goes in")
    parser.add_argument("--full", action="store_true", help="full editions too, with the ISOs of build/ in them")
    parser.add_argument(
        "--sign", type=Path, metavar="PROGRAM", help="signs what is built: macos/sign.sh tells how it is called"
    )
    parser.add_argument("--address", default=Context.address, metavar="URL", help="where the files will be (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="hardly compressed, for tests")
    return parser.parse_args(argv)


class _Places(argparse.Action):
    """TARGET=PLACE, each time for another target."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None) -> None:
        target, _, place = values.partition("=")
        if target not in targets.load() or not Path(place).exists():
            parser.error(f"{option} {values}: TARGET=PLACE, a target of targets.toml and a folder or a pinned archive")
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), target: Path(place).absolute()})


def isos() -> dict[str, Path]:
    """What `make iso` built. Raises BuildError when it built none."""
    found = {arch: project.ROOT / f"build/wherry-{arch}.iso" for arch in ("amd64", "arm64")}
    there = {arch: path for arch, path in found.items() if path.exists() and path.with_suffix(".json").exists()}
    if not there:
        raise BuildError("there is no ISO in build/ for the full editions: make iso")
    return there


def prepared(options: argparse.Namespace) -> Context:
    """The run that the command line asks for. Raises BuildError."""
    pythons, qemus = (
        {target: inputs.folder(place, options.work) for target, place in given.items()}
        for given in (options.python, options.qemu)
    )
    return prepare(
        targets.load(), options.work, options.output, quick=options.quick, pythons=pythons, qemus=qemus,
        isos=isos() if options.full else {}, sign=options.sign, address=options.address,
    )  # fmt: skip


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
        elif options.verb == "pin":
            for file in options.files:
                inputs.pin(file)
        else:
            build(prepared(options), options.only or list(KINDS))
    except BuildError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
