"""What `make test` does when its time is over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.systems import not_on_windows

ROOT = Path(__file__).parent.parent
QUICK = "tests/install/test_macos_scripts"  # as install goes


@not_on_windows("the Makefile's")
@pytest.mark.parametrize("over", [True, False])
def test_machines_are_left_out_by_name_and_units_are_not(over: bool) -> None:
    until = "1" if over else "99999999999"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_layers.py", f"{QUICK}.py"]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"WHERRY_TEST_UNTIL": until}, capture_output=True, timeout=900)
    said = done.stdout.decode()
    assert done.returncode == 0 and " passed" in said, said
    _, _, left = said.partition("left out, as no time was left")
    assert bool(left) == over and (not over or f"{QUICK}.py::" in left), said
