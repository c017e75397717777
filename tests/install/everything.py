"""`make installers`: all of them, with the tests' own Pythons for Windows and macOS where none is given."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from installers.__main__ import main, parse
from installers.tools import say
from installers.windows.layout import TARGET as WINDOWS
from tests.macos import fixture as macos
from tests.windows import fixture as windows

_MADE_OF: Final[Mapping[str, frozenset[str]]] = {"windows": frozenset({"setup", "msi"}), "macos": frozenset({"pkg"})}


def _windows() -> dict[str, Path]:
    return {WINDOWS: windows.windows().folder / "python"}


def _macos() -> dict[str, Path]:
    return {f"macos-{arch}": folder for arch, folder in macos.pythons().items()}


_MAKERS: Final[Mapping[str, tuple[Callable[[], str | None], Callable[[], dict[str, Path]]]]] = {
    "windows": (windows.missing, _windows),
    "macos": (macos.missing, _macos),
}


def words(argv: list[str]) -> list[str]:
    """What the command line lacks. A Python that cannot be made here is told, and the others go on."""
    options = parse(argv)
    found: list[str] = []
    for system, (missing, make) in _MAKERS.items():
        given = [target for target in options.python if target.startswith(system)]
        if options.verb != "build" or given or not _MADE_OF[system] & set(options.only or _MADE_OF[system]):
            continue
        if why := missing():
            say(f"no Python for {system} is given, and none is made here: {why}")
        else:
            found += [word for target, folder in _made(system, make).items() for word in ("--python", f"{target}={folder}")]
    return found


def _made(system: str, make: Callable[[], dict[str, Path]]) -> dict[str, Path]:
    """Nothing where a download or a compiler fails, which have said why themselves."""
    try:
        return make()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        say(f"no Python for {system} is given, and none could be made: {_told(error)}")
        return {}


def _told(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit code {error.returncode} of {shlex.join(map(str, error.cmd))}"
    return str(error)


if __name__ == "__main__":
    sys.exit(main([*sys.argv[1:], *words(sys.argv[1:])]))
