"""The unit tests that are not of Unix alone, on a genuine Windows Python."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from tests.windows.wine import Windows, path

SECONDS: Final = 600
# Of each: how many pass there at least. What is skipped says why (tests/systems.py).
UNITS: Final = {
    "test_acls": 18,
    "test_channels": 3,
    "test_config": 84,
    "test_console": 19,
    "test_context": 21,
    "test_control": 8,
    "test_cost": 6,
    "test_disks": 14,
    "test_files": 7,
    "test_floors": 11,
    "test_guard": 2,
    "test_health": 3,
    "test_held": 2,
    "test_host_windows": 2,
    "test_ignore": 36,
    "test_images": 44,
    "test_job_windows": 20,
    "test_keepers": 8,
    "test_msys_windows": 31,
    "test_next_steps": 3,
    "test_oom": 26,
    "test_patience_windows": 10,
    "test_pipedoor": 4,
    "test_pipes": 12,
    "test_pulse": 5,
    "test_qemu_command": 26,
    "test_qmp": 19,
    "test_revival": 8,
    "test_room": 6,
    "test_seed": 37,
    "test_server": 27,
    "test_session_windows": 12,
    "test_sftp_order": 11,
    "test_sftp_owners": 18,
    "test_sftp_windows": 59,
    "test_sftp_windows_session": 2,
    "test_sftp_windows_tree": 20,
    "test_share_watch_window": 18,
    "test_slots": 6,
    "test_starts": 18,
    "test_store": 11,
    "test_terminal_windows": 10,
    "test_upkeep": 8,
    "test_windows_paths": 74,
}


def test_units(windows: Windows, tmp_path: Path) -> None:
    scratch = windows.folder / "prefix/drive_c/t"  # a short path, on a drive that knows no cases
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    report = tmp_path / "report.xml"
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "-o", "junit_family=xunit1",
             f"--junitxml={path(report)}", rf"--basetemp=C:\t\{os.getpid()}",
             *(f"tests/{name}.py" for name in UNITS)]  # fmt: skip
    code, said = windows.run([windows.python, *words], timeout=SECONDS)
    assert report.exists(), said
    passed = dict.fromkeys(UNITS, 0)
    for case in ElementTree.parse(report).iter("testcase"):
        found = case.get("classname", "").rpartition(".")[2]
        assert case.find("failure") is None and case.find("error") is None, said
        passed[found] += case.find("skipped") is None
    assert code == 0, said
    assert {name: count for name, count in passed.items() if count < UNITS[name]} == {}, said
