"""Progress lines, the one error type, the only door to other programs, digests."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class BuildError(Exception):
    """The build cannot go on; the text is for the person who called it."""


def say(text: str) -> None:
    """One progress line on stderr."""
    print(f"installers: {text}", file=sys.stderr, flush=True)


def run(command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> bytes:
    """Runs a program and returns its stdout; a failure shows the last lines that it said. Raises BuildError."""
    full = [str(part) for part in command]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", **(env or {})}
    try:
        done = subprocess.run(full, capture_output=True, env=environment, cwd=cwd, check=False)
    except OSError as error:
        raise BuildError(f"{full[0]} could not be started: {error.strerror}") from error
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()[-25:]
        raise BuildError(f"{Path(full[0]).name} failed with {done.returncode}:\n  " + "\n  ".join(said))
    return done.stdout


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
