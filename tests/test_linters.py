"""The linters, as tests: what they find fails like everything else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def module(name: str, *words: str) -> None:
    check([sys.executable, "-m", name, *words])


def check(argv: list[str]) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"


def tracked() -> list[Path]:
    """All files of the project, without what is built."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listing = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout
        names = [os.fsdecode(name) for name in listing.split(b"\0") if name]
        return [ROOT / name for name in names if (ROOT / name).is_file()]
    left_out = {".venv", "build", "dist", "__pycache__"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not left_out & set(path.relative_to(ROOT).parts)]


def shell_scripts() -> list[Path]:
    """By their first line, since the guest's programs have no suffix; boot.d is read by boot.sh and ends in .sh."""
    found = []
    for path in tracked():
        with path.open("rb") as file:
            first = file.readline(64)
        if re.match(rb"#!\s*/(usr/)?bin/(env )?(busybox )?(ba|da)?sh\b", first) or path.suffix == ".sh":
            found.append(path)
    return sorted(found)


def test_ruff_check() -> None:
    module("ruff", "check", "--no-cache", "launcher", "iso", "installers", "tests", ".ci")


def test_ruff_format() -> None:
    module("ruff", "format", "--no-cache", "--check", "launcher", "iso", "installers", "tests", ".ci")


def test_mypy() -> None:
    module("mypy")


def test_mypy_sees_the_windows_module() -> None:
    module(
        "mypy",
        "--platform",
        "win32",
        "launcher/host/windows.py",
        "launcher/host/_login_windows.py",
        "launcher/sftp/windows_tree.py",
    )


def test_mypy_sees_the_macos_module() -> None:
    module("mypy", "--platform", "darwin", "launcher/host/macos.py", "launcher/host/_login_macos.py")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck() -> None:
    guest, host = [], []
    for path in shell_scripts():
        (guest if path.relative_to(ROOT).parts[0] in ("iso", "provisioning") else host).append(str(path))
    assert len(guest) > 10
    options = ["shellcheck", "--severity=style", "--external-sources", "--source-path=SCRIPTDIR:iso/overlay/usr/lib/wherry"]
    check([*options, *host])
    # What boot.sh reads has no first line of its own.
    check([*options, "--shell=sh", *guest])


def test_codespell() -> None:
    texts = [path for path in tracked() if path.suffix in (".py", ".md", ".sh", ".toml", ".c", ".h", "")]
    module("codespell_lib", "--ignore-words-list=caf,stauts", *[str(path) for path in texts if path.name != "LICENSE"])
