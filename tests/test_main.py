"""The entry point where a terminal is not what one thinks: empty names, closed streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def wherry(home: Path, *words: str, closed: str = "") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-m", "launcher", *words],
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "WHERRY_HOME": str(home)},
    )


@pytest.mark.parametrize(
    "words",
    [
        ("delete", "--yes", ""),
        ("--machine", "", "delete", "--yes"),
        ("up", ""),
        ("stop", ""),
        ("--machine=", "run", "wherry/hello"),
    ],
)
def test_an_empty_name_is_never_the_default_machine(home: Path, words: tuple[str, ...]) -> None:
    done = wherry(home, *words)
    assert done.returncode == (125 if "run" in words else 2)
    assert b"'' cannot be a machine's name" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(home: Path, closed: str) -> None:
    done = wherry(home, "list", closed=closed)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert wherry(home, "status", closed=closed).returncode == 3


def test_more_memory_than_there_is_is_refused_before_anything_is_made(home: Path) -> None:
    done = wherry(home, "up", "--memory", "8000T")
    assert done.returncode == 2
    assert b"more than this computer has" in done.stderr
    assert not (home / "machines" / "default").exists()
