"""A Windows of a test's own: the drive and the registry of the fixture, in which nothing is installed yet."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.windows import fixture
from tests.windows.fixture import Windows, windows


@contextmanager
def fresh(folder: Path) -> Iterator[Windows]:
    """Wine's own files are linked, since nobody writes into them; the registry is copied. Its programs end with the test."""
    source = windows()
    subprocess.run(["cp", "-al", source.folder / "prefix", folder / "prefix"], check=True)
    for file in (source.folder / "prefix").glob("*.reg"):
        (folder / "prefix" / file.name).unlink()
        shutil.copy2(file, folder / "prefix")
    (folder / "home").mkdir()
    made = Windows(folder)
    quiet = {"env": made.environment(), "check": True, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    try:
        # The server and the services stay: without that each program would wait two seconds for others. They hold the streams
        # of the program that they were started for, which therefore must not be a test's pipe.
        subprocess.run([fixture._wineserver(), "-p"], **quiet, stderr=subprocess.DEVNULL)
        subprocess.run([fixture.wine(), "cmd", "/c", "exit"], **quiet, stderr=subprocess.DEVNULL)
        yield made
    finally:
        made.end()


def drive(made: Windows) -> Path:
    return made.folder / "prefix/drive_c"


def local(made: Windows) -> Path:
    """%LOCALAPPDATA%."""
    [found] = [path for path in drive(made).glob("users/*/AppData/Local") if path.parts[-3] != "Public"]
    return found
