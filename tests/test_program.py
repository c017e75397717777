"""How this wherry says that it is renewed and removed, by what installed it."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from launcher import __version__
from launcher.machine import program

ROOT = Path(__file__).parent.parent


def test_it_calls_itself() -> None:
    done = subprocess.run([*program.command(), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"wherry {__version__}\n"


def test_a_checkout_is_removed_as_a_folder() -> None:
    assert program.ways() == (f"git -C {ROOT} pull", f"remove {ROOT}")


@pytest.mark.parametrize(
    ("prefix", "remove"),
    [
        ("/home/u/.local/share/pipx/venvs/wherry", "pipx uninstall wherry"),
        ("/home/u/.local/pipx/venvs/wherry-not", "-m pip uninstall wherry"),
        ("/home/u/.local/share/uv/tools/wherry", "uv tool uninstall wherry"),
        ("/opt/homebrew/Cellar/wherry/1.0/libexec", "brew uninstall wherry"),
        ("/usr/lib/wherry", "sudo apt-get remove wherry"),
        ("/usr/local/lib/wherry", "sudo /usr/local/lib/wherry/uninstall"),
        ("/C:/Users/u/AppData/Local/Programs/Wherry/python", r"Programs\Wherry\uninstall.exe"),
        ("/home/u/venv", f"{sys.executable} -m pip uninstall wherry"),
    ],
)
def test_by_where_it_is(prefix: str, remove: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            return '{"url": "file:///x", "archive_info": {}}'  # of a wheel

    monkeypatch.setattr(sys, "prefix", prefix)
    monkeypatch.setattr(metadata, "distribution", lambda _: Installed())
    assert program.ways().remove.endswith(remove)
    monkeypatch.setattr(program, "__file__", "/usr/lib/python3/dist-packages/launcher/machine/program.py")
    if prefix == "/home/u/venv":
        assert program.ways().remove == "sudo apt-get remove wherry"
