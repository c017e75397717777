"""Folders that are closed to other users on Windows. Wine keeps no access lists of files: only a real one shows all effects."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import host
from launcher.host import acls

US = "S-1-5-21-1-2-3-1001"
on_windows = pytest.mark.skipif(host.current().NAME != "windows", reason="access lists are of Windows")


@pytest.mark.parametrize(
    ("text", "others"),
    [
        # What Windows gives %LOCALAPPDATA%, and what we give a folder.
        (f"D:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIID;FA;;;{US})", []),
        (f"D:P(A;OICI;FA;;;{US})(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)", []),
        # The same, of a folder in the root of a drive.
        (
            "D:AI(A;OICIID;FA;;;BA)(A;OICIID;FA;;;SY)(A;OICIID;0x1200a9;;;S-1-5-32-545)(A;OICIIOID;GA;;;CO)(A;ID;0x1301bf;;;AU)",
            ["S-1-5-32-545", "AU"],
        ),
        (f"D:(A;;FA;;;{US})(A;;FR;;;WD)", ["WD"]),
        (f"D:(A;;FA;;;{US})(A;;CCSWRPLO;;;S-1-5-21-1-2-3-1002)", ["S-1-5-21-1-2-3-1002"]),
        # Refused, or let in for something else than reading; a program in a box of Windows' is the user's.
        (f"D:(D;;FA;;;WD)(A;;FX;;;S-1-5-32-545)(A;;SWRC;;;S-1-5-32-545)(A;;0x100020;;;S-1-5-32-545)(A;;FA;;;{US})", []),
        ("D:(A;;FA;;;OW)(A;;0x1200a9;;;AC)(A;;FR;;;S-1-15-3-1024-1)", []),
        ("D:P", []),  # nobody may do anything
        ("D:NO_ACCESS_CONTROL", ["WD"]),  # a drive without access lists
        ("", ["WD"]),
        ('D:(XA;;FR;;;WD;(@User.Title=="x"))', ["WD"]),
    ],
)
def test_who_may_read(text: str, others: list[str]) -> None:
    assert acls.readers(text, US) == others


@on_windows
def test_a_list_is_read(tmp_path: Path) -> None:
    text = acls.listed(str(tmp_path))
    assert text.startswith("D:")
    assert acls.user() in text or "BA" in text
    assert host.current().is_private(tmp_path) == (acls.readers(text, acls.user()) == [])
    assert acls.user() in host.current().close_hint([tmp_path])


@on_windows
def test_what_is_not_there_has_no_list(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        host.current().is_private(tmp_path / "gone")


@on_windows
def test_a_closed_folder_is_still_ours(tmp_path: Path) -> None:
    folder = tmp_path / "é"
    host.current().make_private(folder)
    (folder / "x").write_text("ours")
    assert (folder / "x").read_text() == "ours"


@on_windows
def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        acls.close(str(tmp_path / "gone"))
