"""Progress lines, the one error type, and the only door to other programs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_START = time.monotonic()


class BuildError(Exception):
    """The build cannot go on; the text is for the person who called it."""


def say(text: str) -> None:
    """One progress line on stderr."""
    print(f"[{time.monotonic() - _START:6.1f}] {text}", file=sys.stderr, flush=True)


def run(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> bytes:
    """Runs a program and returns its stdout; a failure shows the last lines that it said."""
    full = [str(part) for part in command]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", **(env or {})}
    try:
        done = subprocess.run(full, capture_output=True, env=environment, check=False)
    except OSError as error:
        raise BuildError(f"{full[0]} could not be started: {error.strerror}") from error
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()[-25:]
        raise BuildError(f"{Path(full[0]).name} failed with {done.returncode}:\n  " + "\n  ".join(said))
    return done.stdout
