"""Pythons and QEMUs that are given to the builders: a folder as it is, or an archive whose SHA-256 is pinned in inputs.toml."""

from __future__ import annotations

import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Final

from installers.tools import BuildError, say, sha256
from installers.wheels import clear

PINS: Final = Path(__file__).with_name("inputs.toml")
_HINT: Final = "compare it with what its makers publish, then: python -m installers pin"


def folder(given: Path, work: Path, pins: Path = PINS) -> Path:
    """The folder, or the archive unpacked below `work`. Raises BuildError for an archive that is not the pinned one."""
    if given.is_dir():
        say(f"{given} is pinned nowhere: a release takes the archive that inputs.toml names")
        return given
    wanted, found = read(pins).get(given.name), sha256(given)
    if wanted != found:
        state = "pinned with another SHA-256" if wanted else "not pinned"
        raise BuildError(f"{given.name} is {state} in inputs.toml; this one has {found}: {_HINT} {given}")
    target = clear(work / "inputs" / found[:16])
    _unpack(given, target)
    inside = list(target.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target


def read(pins: Path = PINS) -> dict[str, str]:
    """SHA-256 by the archive's name."""
    return dict(tomllib.loads(pins.read_text(encoding="utf-8"))["sha256"])


def pin(given: Path, pins: Path = PINS) -> None:
    """Writes the archive's SHA-256 down, in place of an earlier one of that name. Raises BuildError when it is no file."""
    if not given.is_file():
        raise BuildError(f"{given} is no file")
    comments = [line for line in pins.read_text(encoding="utf-8").splitlines(keepends=True) if line.startswith("#")]
    known = read(pins) | {given.name: sha256(given)}
    lines = [f'"{name}" = "{digest}"\n' for name, digest in sorted(known.items())]
    pins.write_text("".join([*comments, "[sha256]\n", *lines]), encoding="utf-8")
    say(f"{given.name} is pinned: {known[given.name]}")


def _unpack(archive: Path, target: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as found:
            found.extractall(target)  # noqa: S202  # it is pinned
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as packed:
            packed.extraction_filter = getattr(tarfile, "data_filter", None)
            packed.extractall(target)  # noqa: S202
    else:
        raise BuildError(f"{archive.name} is neither a zip nor a tar")
