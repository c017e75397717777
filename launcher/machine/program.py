"""This wherry as a program: how it is called again, and how what installed it removes or renews it."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

from launcher import host

_NAME: Final = "wherry"


class Ways(NamedTuple):
    """Commands for a user's shell, or a sentence where there is no command."""

    upgrade: str
    remove: str


# By what is in the path of the interpreter's own folder (sys.prefix): pipx and uv give each tool one of its own, below these.
_TOOLS: Final = (
    (("pipx", "venvs", _NAME), Ways("pipx upgrade wherry", "pipx uninstall wherry")),
    (("uv", "tools", _NAME), Ways("uv tool upgrade wherry", "uv tool uninstall wherry")),
    (("Cellar", _NAME), Ways("brew upgrade wherry", "brew uninstall wherry")),
    # Where the packages of installers/ put it.
    (("usr", "lib", _NAME), Ways("sudo apt-get install --only-upgrade wherry", "sudo apt-get remove wherry")),
    (("usr", "local", "lib", _NAME), Ways("install the newer package", "sudo /usr/local/lib/wherry/uninstall")),
    (("Programs", "Wherry"), Ways("run the newer setup.exe", r"%LOCALAPPDATA%\Programs\Wherry\uninstall.exe")),
)


def command() -> list[str]:
    """The words that call this very wherry, whatever is on PATH."""
    beside = Path(sys.executable).with_name(f"{_NAME}{host.current().PROGRAM_SUFFIX}")
    return [str(beside)] if beside.exists() else [sys.executable, "-P", "-m", "launcher"]


def ways() -> Ways:
    """How this wherry is renewed and removed."""
    for parts, found in _TOOLS:
        if _within(Path(sys.prefix).parts, parts):
            return found
    checkout = _checkout()
    if checkout:
        return Ways(f"git -C {checkout} pull", f"remove {checkout}")
    if _of_the_system():
        return Ways("sudo apt-get install --only-upgrade wherry", "sudo apt-get remove wherry")
    pip = f"{sys.executable} -m pip"
    return Ways(f"{pip} install --upgrade wherry", f"{pip} uninstall wherry")


def _within(path: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    return any(path[start : start + len(parts)] == parts for start in range(len(path)))


def _checkout() -> str:
    """The folder that it is run from as it is being worked on (PEP 610: direct_url.json of an editable install)."""
    try:
        told = json.loads(metadata.distribution(_NAME).read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return str(Path(__file__).parents[2])  # not installed at all
    if told.get("dir_info", {}).get("editable") is not True:
        return ""
    return str(Path(__file__).parents[2])


def _of_the_system() -> bool:
    """Whether it is where only Debian's packages put anything (Debian Python Policy, 2.5)."""
    return "dist-packages" in Path(__file__).parts and Path(__file__).is_relative_to("/usr/lib/python3")
