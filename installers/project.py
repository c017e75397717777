"""The wheel of wherry itself, which every installer wraps."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

from installers.tools import BuildError, run
from installers.wheels import clear

ROOT: Final = Path(__file__).parent.parent


def version() -> str:
    """As the launcher has it."""
    text = (ROOT / "launcher/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise BuildError("launcher/__init__.py has no version")
    return found[1]


def epoch(locked: int) -> int:
    """Seconds that date everything in an installer: SOURCE_DATE_EPOCH, else the time of the lock."""
    told = os.environ.get("SOURCE_DATE_EPOCH")
    return int(told) if told else locked


def wheel(folder: Path, epoch: int) -> Path:
    """Builds the wheel; the same tree gives the same bytes."""
    words: list[str | Path] = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", clear(folder)]
    run(words, cwd=ROOT, env={"SOURCE_DATE_EPOCH": str(epoch)})
    [built] = folder.glob("*.whl")
    return built
