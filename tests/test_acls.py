"""Folders that are closed to other users on Windows. Wine keeps no access lists of files: only a real one shows all effects."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import host
from launcher.host import _private_windows, acls

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
        # The built-in administrator and those of the domain, whose numbers no list as text has.
        ("D:P(A;OICI;FA;;;LA)(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;;FA;;;DA)", []),
        ("D:P", []),  # nobody may do anything
        ("D:NO_ACCESS_CONTROL", ["WD"]),  # a drive without access lists
        ("", ["WD"]),
        ('D:(XA;;FR;;;WD;(@User.Title=="x"))', ["WD"]),
    ],
)
def test_who_may_read(text: str, others: list[str]) -> None:
    assert acls.readers(text, US) == others


def test_the_list_of_the_built_in_administrator_is_his_own() -> None:
    """What Windows says of a folder that he alone has: his number is LA there, though it is S-1-5-21-...-500 elsewhere."""
    assert acls.readers("D:P(A;OICI;FA;;;LA)(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)", "S-1-5-21-1-2-3-500") == []
    assert acls.readers("D:P(A;OICI;FA;;;LG)(A;OICI;FA;;;LA)", "S-1-5-21-1-2-3-500") == ["LG"]  # the guest is another


def test_what_closes_them_takes_all_entries_away_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/inheritance:r /grant:r` leaves what others were given by name. A line for each command: PowerShell of Windows has no
    `&&`, and cmd no `;`."""
    monkeypatch.setattr(acls, "user", lambda: US)
    key = tmp_path / "a key"
    key.touch()
    assert _private_windows.close_hint([tmp_path, key]).splitlines() == [
        f'icacls "{tmp_path}" /reset',
        f'icacls "{tmp_path}" /inheritance:r /grant:r "*{US}:(OI)(CI)F"',
        f'icacls "{key}" /reset',
        f'icacls "{key}" /inheritance:r /grant:r "*{US}:F"',
    ]


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
