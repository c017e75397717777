"""Folders that are closed to other users on Windows. Wine keeps no access lists of files: only a real one shows the effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import host

if host.current().NAME != "windows":
    pytest.skip("access lists are of Windows", allow_module_level=True)

from launcher.host import acls


def test_a_closed_folder_is_still_ours(tmp_path: Path) -> None:
    folder = tmp_path / "é"
    host.current().make_private(folder)
    (folder / "x").write_text("ours")
    assert (folder / "x").read_text() == "ours"


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        acls.close(str(tmp_path / "gone"))
