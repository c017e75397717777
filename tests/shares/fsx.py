"""fsx, the tester of file systems by random operations against a model (first of Apple's, here its port in the crate `fsx`)."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

VERSION = "0.3.2"


def fsx() -> Path:
    """The program, compiled once for all checkouts; a test is skipped where no cargo is to compile it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wherry-build" / f"fsx-{VERSION}"
    program = cache / "bin" / "fsx"
    cache.parent.mkdir(parents=True, exist_ok=True)
    with cache.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            if shutil.which("cargo") is None:
                pytest.skip("no cargo here to compile fsx")
            command = ["cargo", "install", "--quiet", "--locked", "--version", VERSION, "--root", str(cache), "fsx"]
            subprocess.run(command, check=True, timeout=1200)
    return program
