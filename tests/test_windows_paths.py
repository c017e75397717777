r"""All ways to say a path on Windows, as text: C:\x, C:/x, \\?\C:\x, /c/x, //c/x, \\server\share, C:x."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher import host, sharing
from launcher.cli import hostfiles
from launcher.config import Shares
from launcher.errors import Usage
from launcher.host import windows
from launcher.keeper.proxy.create import Rules, rewrite
from launcher.keeper.proxy.folders import Folders
from launcher.keeper.proxy.refusal import Refusal
from launcher.sharing import Share, split_bind, whole


def on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be there, as far as paths go: nothing of it is a link."""
    known = {
        **vars(windows),
        "real_path": windows.clean_path,
        "home": lambda: r"C:\Users\ana",
        "run_base": host.current().run_base,
    }
    monkeypatch.setattr(host, "current", lambda: SimpleNamespace(**known))


HERE = r"C:\Users\ana\code"
SAME = [
    r"C:\Users\ana\x", "C:/Users/ana/x", r"c:\Users\ana\y\..\x", r"\\?\C:\Users\ana\x", "//?/C:/Users/ana/x",
    r"\\.\C:\Users\ana\x", "/c/Users/ana/x", "//c/Users/ana/x", "/mnt/c/Users/ana/x", r"C:\\Users\ana\x",
]  # fmt: skip


@pytest.mark.parametrize("said", SAME)
def test_one_folder_by_all_its_names(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_windows(monkeypatch)
    assert whole(said, HERE) == r"C:\Users\ana\x"
    assert windows.guest_path(windows.clean_path(said)) == "/c/Users/ana/x"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("x", HERE + r"\x"), (r".\x\..\y", HERE + r"\y"), (r"..\x", r"C:\Users\ana\x"), ("~/x", r"C:\Users\ana\x"),
        ("C:", HERE), ("C:x", HERE + r"\x"), (r"\x", r"C:\x"), ("C:\\", "C:\\"), (r"\\server\share\x", r"\\server\share\x"),
    ],
)  # fmt: skip
def test_what_is_said_from_where_one_is(said: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_windows(monkeypatch)
    assert whole(said, HERE) == found


@pytest.mark.parametrize("said", [r"\\server\share\x", "//server/share/x", r"\\?\UNC\server\share"])
def test_a_network_path_is_refused_with_what_makes_a_drive_of_it(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_windows(monkeypatch)
    with pytest.raises(Usage, match="network path") as caught:
        sharing.check(whole(said, HERE))
    assert (caught.value.hint or "").startswith("Give it a drive letter: net use Z: ")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (r"C:\a:/b:ro", (r"C:\a", ":/b:ro")), ("c:/a b:/b", ("c:/a b", ":/b")), (r"\\?\C:\a:/b", (r"\\?\C:\a", ":/b")),
        ("//?/C:/a:/b", ("//?/C:/a", ":/b")), ("/c/a:/b", ("/c/a", ":/b")), ("//c/a:/b:ro", ("//c/a", ":/b:ro")),
        (r"\\server\share:/b", (r"\\server\share", ":/b")), (".:/b", (".", ":/b")), ("data:/b", ("data", ":/b")),
        ("/b", None), (":/b", None), ("C:/b", None), (r"C:\b", None), ("data", None), ("", None),
    ],
)  # fmt: skip
def test_a_mount_is_parted_at_the_right_colon(text: str, parts: tuple[str, str] | None) -> None:
    assert split_bind(text) == parts


def test_a_source_that_depends_on_where_a_drive_stands() -> None:
    with pytest.raises(Usage, match="C:data:/x: what C: stands at is not known to the machine") as caught:
        split_bind("C:data:/x")
    assert caught.value.hint == "Begin with C:\\"


@pytest.mark.parametrize("said", [said for said in SAME if not said.startswith("/mnt")])
def test_the_words_of_a_command(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_windows(monkeypatch)
    monkeypatch.setattr(sharing, "here", lambda: HERE)
    told = hostfiles._from_here("-v", f"{said}:/y:ro")
    assert told in ("/c/Users/ana/x:/y:ro", f"{said}:/y:ro")
    assert told.startswith("/c") or said.startswith("//c")
    assert hostfiles._from_here("-v", r"..\data:/y") == "/c/Users/ana/data:/y"
    assert hostfiles._from_here("--mount", r"type=bind,src=D:\x,dst=/y") == "type=bind,src=/d/x,dst=/y"
    with pytest.raises(Usage, match="network path"):
        hostfiles._from_here("-v", r"\\server\share:/y")


@pytest.mark.parametrize("said", SAME)
def test_the_bind_of_a_request(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a docker client of Windows, or any other, sends it."""
    on_windows(monkeypatch)
    monkeypatch.setattr(sharing, "_is_really", lambda _share, _path: True)
    monkeypatch.setattr(Path, "is_dir", lambda _path: False)
    folders = Folders(lambda: [Share("home", r"C:\Users\ana", "/c/Users/ana", ("/mnt/c/Users/ana",), False)])

    def sent(bind: str) -> str:
        body = rewrite(json.dumps({"HostConfig": {"Binds": [bind]}}).encode(), Rules(folders=folders))
        return str(json.loads(body)["HostConfig"]["Binds"][0])

    assert sent(f"{said}:/y") == "/c/Users/ana/x:/y"
    for bad in (r"\\server\share:/y", "C:data:/y"):
        with pytest.raises(Refusal, match="network path" if "server" in bad else "stands at"):
            sent(bad)


def test_long_paths_are_opened_whatever_the_settings() -> None:
    long = "C:\\" + "\\".join(["x" * 60] * 5)
    assert windows.long_path(long) == "\\\\?\\" + long
    assert windows.long_path("C:\\x") == "C:\\x"
    assert windows.long_path("\\\\?\\" + long) == "\\\\?\\" + long


DEEP = "\\".join(["x" * 60] * 5)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Z:\\", "Z:\\"), ("Z:\\x", "Z:\\x"), ("z:/X", "Z:\\X"), ("//?/Z:/x", "Z:\\x"), ("Z:\\" + DEEP, "Z:\\" + DEEP),
        ("Z:\\to here\\y", "Z:\\here\\y"),  # a link in the drive: what is private is known by where it really is
        ("Z:\\to there\\y", "Z:\\to there\\y"), ("C:\\to there\\y", "C:\\to there\\y"), ("C:\\to Z", "C:\\to Z"),
        ("C:\\bare\\y", "C:\\bare\\y"), ("C:\\x", "C:\\x"), ("C:\\" + DEEP, "C:\\" + DEEP), ("C:\\to D\\y", "D:\\y"),
        (r"\\SERVER\share\x", r"\\server\share\x"),
    ],
)  # fmt: skip
def test_what_is_on_a_network_drive_stays_on_it(said: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows follows a drive to its \\\\server\\share, and a folder to a volume without a letter: neither can be shared."""
    links = {
        "z:\\to here": r"\\server\share\here", "z:\\to there": r"\\server\share2", "z:": r"\\server\share",
        "c:\\to there": r"\\server\share2", "c:\\to z": r"\\server\share", "c:\\to d": "D:", r"\\server": r"\\server",
        "c:\\bare": r"\\?\Volume{1-2}",
    }  # fmt: skip

    def realpath(path: str) -> str:
        """As ntpath's, which keeps what a path begins with: then \\\\?\\UNC\\server is what it gives."""
        before, rest = ("\\\\?\\", path[4:]) if path.startswith("\\\\?\\") else ("", path)
        for link, target in links.items():
            if f"{rest}\\".lower().startswith(f"{link}\\"):
                begin = before if target == "D:" else f"{before}UNC" if before else "\\"
                return (target if "?" in target else begin + target.removeprefix("\\")) + rest[len(link) :]
        return path

    monkeypatch.setattr(windows.ntpath, "realpath", realpath)
    assert windows.real_path(said) == found


def test_a_network_drive_is_shared_where_its_letter_says(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {**vars(windows), "home": lambda: r"C:\Users\ana", "run_base": host.current().run_base}
    monkeypatch.setattr(host, "current", lambda: SimpleNamespace(**known))
    monkeypatch.setattr(windows.ntpath, "realpath", lambda path: path.replace("Z:", r"\\server\share"))
    [share] = sharing.shares_in(Shares(home=False, folders=(r"Z:\code",)))
    assert (share.path, share.guest, share.id.split("-")[0]) == (r"Z:\code", "/z/code", "code")


@pytest.mark.skipif(host.current().NAME != "windows", reason="a long path is long on Windows alone")
def test_a_folder_of_three_hundred_characters_can_be_shared(tmp_path: Path) -> None:
    from launcher.host.ntfiles import NtFiles

    folder = tmp_path / "ä b"
    while len(str(folder)) < 300:
        folder /= "x" * 50
    os.makedirs(windows.long_path(str(folder)))
    sharing.check(str(folder))
    assert windows.real_path(str(folder)) == str(folder)
    files = NtFiles()
    handle = files.root(str(folder))
    files.close(handle)
