"""The testers of tests/vm on a plain folder here, which judges the testers, and on the guest's file system mounted here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.shares.fsx import fsx
from tests.shares.served import mounted

HERE = Path(__file__).parent
# What a share does not have, each with the errno that says so.
LIMITS = {
    "device node": "EPERM",
    "fifo": "EPERM",
    "unix socket": "EPERM",
    "O_TMPFILE": "ENOTSUP",
    "extended attributes": "ENOTSUP",
    "RENAME_EXCHANGE": "EINVAL",
    # On purpose: what a container's users may is for its images to say, and all files are the host user's.
    "another user may do what mode and owner say, no more": "it may more",
}


@contextmanager
def plain(folder: Path) -> Iterator[Path]:
    yield folder


@pytest.mark.parametrize("place", [plain, mounted])
def test_posix_table(place: Callable[..., object], tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    with place(tmp_path) as folder:  # type: ignore[attr-defined]
        command = [sys.executable, str(HERE / "posixtable.py"), "--json", str(folder)]
        done = subprocess.run(command, capture_output=True, timeout=600, check=False)
    assert done.stdout, done.stderr.decode()
    found = json.loads(done.stdout)
    for name, (outcome, word) in found.items():
        record_property("table", f"{name:<76} {outcome}{': ' if word else ''}{word}")
    assert {name: word for name, (outcome, word) in found.items() if outcome == "WRONG"} == {}
    if place is mounted:  # what this computer's own folders lack is not ours to say
        assert {name: word for name, (outcome, word) in found.items() if outcome == "not supported"} == LIMITS


@pytest.mark.parametrize("seed", range(3))
def test_fsx(tmp_path: Path, seed: int) -> None:
    program = fsx()
    with mounted(tmp_path) as folder:
        command = [str(program), "-q", "-N", "2000", "-S", str(seed), "-P", str(tmp_path), str(folder / "file")]
        done = subprocess.run(command, capture_output=True, timeout=600, check=False, env={**os.environ, "RUST_LOG": "error"})
    assert done.returncode == 0, (done.stdout[-3000:].decode(), done.stderr[-3000:].decode())
