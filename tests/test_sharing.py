from __future__ import annotations

import os
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from launcher import host, sharing
from launcher.config import GIB, MachineConfig, Shares
from launcher.errors import Refused, Usage, WherryError
from launcher.host import macos, windows
from launcher.sharing import Share, check, find, guest_path, shares_of, whole


def config(*folders: str, home: bool = True) -> MachineConfig:
    return MachineConfig("amd64", 2, GIB, "0" * 64, shares=Shares(home, folders))


def on(monkeypatch: pytest.MonkeyPatch, system: ModuleType, **facts: Any) -> None:
    """Be on that system, as far as paths go. Nothing of it is there, so its links are given as `links`."""
    links = facts.pop("links", {})

    def real(path: str) -> str:
        path = system.clean_path(path)
        for link, target in links.items():
            if path == link or path.startswith((link + "/", link + "\\")):
                return str(target + path[len(link) :])
        return str(path)

    known = {**vars(system), "real_path": real, "run_base": host.current().run_base, **facts}
    monkeypatch.setattr(host, "current", lambda: SimpleNamespace(**known))


def on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/var/folders/zz/ab12/T/")
    on(
        monkeypatch, macos, home=lambda: "/Users/ana",
        links={"/var": "/private/var", "/tmp": "/private/tmp", "/etc": "/private/etc"},
    )  # fmt: skip


def on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, windows, home=lambda: r"C:\Users\ana")


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of one's own, below what is no place of the machine's."""
    home = (tmp_path / "home" / "ana").resolve()
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WHERRY_HOME", str(tmp_path / "wherry"))
    return home


def test_home_comes_first_and_is_where_it_is(user: Path) -> None:
    (data := user.parent.parent / "data").mkdir()
    shares = shares_of(config(f"{data}:ro"))
    assert shares[0] == Share("home", str(user), str(user), (), False)
    assert shares[1][1:] == (str(data), str(data), (), True, "")
    assert [share.id for share in shares_of(config(str(data), home=False))] == [shares[1].id]
    assert re.fullmatch(r"data-[0-9a-f]{8}", shares[1].id)


def test_home_is_first_also_when_a_share_is_around_it(user: Path) -> None:
    shares = shares_of(config(str(user.parent)))
    assert [share.id for share in shares] == ["home", shares[1].id]
    assert [share.inside for share in shares] == [shares[1].id, ""]


def test_a_folder_in_a_share_is_a_rule_of_the_outermost(user: Path) -> None:
    shares = {share.path: share for share in shares_of(config(f"{user}/a/b/c:ro", f"{user}/a/b", f"{user}/ab"))}
    assert [share.inside for share in shares.values()] == ["", "home", "home", "home"]
    assert shares[f"{user}/a/b/c"].read_only and not shares[f"{user}/a/b"].read_only


def test_what_was_said_last_of_a_folder_counts(user: Path) -> None:
    (user / "link").symlink_to(user)
    assert [share.read_only for share in shares_of(config("/srv/x:ro", "/srv/x"))] == [False, False]
    assert [(share.id, share.read_only) for share in shares_of(config("~:ro"))] == [("home", True)]
    assert [(share.id, share.read_only) for share in shares_of(config("~/link/:ro", home=False))] == [("home", True)]


def test_a_home_behind_a_link_has_both_names(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (link := user.parent.parent / "here").symlink_to(user)
    monkeypatch.setenv("HOME", str(link))
    assert shares_of(config()) == [Share("home", str(user), str(user), (str(link),), False)]


def test_a_link_in_a_share_leads_in_the_machine_too(user: Path) -> None:
    (data := user.parent.parent / "data").mkdir()
    (user / "data").symlink_to(data)
    _, linked = shares_of(config("~/data"))
    assert (linked.path, linked.aliases, linked.inside) == (str(data), (), "")
    assert shares_of(config("~/data", home=False))[0].aliases == (str(user / "data"),)


def test_ids_stay_and_fit(user: Path) -> None:
    paths = ["/srv/x", "/srv/y", "/opt/x", "/srv/" + "n" * 200, "/srv/Ää", "/srv/ ", "/srv/" + os.fsdecode(b"a\xff")]
    ids = [share.id for share in shares_of(config(*paths))]
    assert len(set(ids)) == len(paths) + 1 and all(re.fullmatch("[a-z0-9-]{1,32}", found) for found in ids)
    assert {share.path: share.id for share in shares_of(config(*reversed(paths), home=False))} == dict(
        zip(paths, ids[1:], strict=True)
    )


@pytest.mark.parametrize("folder", ["/", "/usr/lib", "/etc", "/var/lib/docker/volumes", "/tmp"])
def test_what_the_machine_has_itself_is_never_a_share(user: Path, folder: str) -> None:
    assert [share.id for share in shares_of(config(folder))] == ["home"]


def test_a_home_that_is_no_place_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert shares_of(config()) == []


def test_macos(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    on_macos(monkeypatch)
    own, temporary, made, data = shares_of(config("/tmp/x", "/Volumes/Data/App"))
    assert own == Share("home", "/Users/ana", "/Users/ana", (), False)
    assert temporary[1:4] == (
        "/private/var/folders/zz/ab12/T", "/var/folders/zz/ab12/T", ("/private/var/folders/zz/ab12/T",),
    )  # fmt: skip
    assert made[1:4] == ("/private/tmp/x", "/tmp/x", ("/private/tmp/x",))
    assert find([own, temporary, made, data], "/volumes/data/app/SRC") is None  # nobody knows here that it is the same
    monkeypatch.setattr(Path, "samefile", lambda _path, other: other == "/Volumes/Data/App")
    assert find([own, temporary, made, data], "/volumes/data/app/SRC") == data
    assert sharing.in_guest(data, "/volumes/data/app/SRC") == "/Volumes/Data/App/SRC"
    assert find([own, temporary, made, data], "/private/tmp/x/y") == made
    assert find([own, temporary, made, data], "/private/tmp/y") is None
    assert [share.id for share in shares_of(config("/private", "/etc", "/var/folders"))] == ["home", temporary.id]


@pytest.mark.parametrize("temporary", ["", "/tmp", "/Users/ana/tmp", "/private/tmp/x"])
def test_a_tmpdir_that_is_not_the_systems_own(monkeypatch: pytest.MonkeyPatch, home: Path, temporary: str) -> None:
    on_macos(monkeypatch)
    monkeypatch.setenv("TMPDIR", temporary)
    assert [share.id for share in shares_of(config())] == ["home"]


def test_windows(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    on_windows(monkeypatch)
    own, data, drive = shares_of(config(r"D:\Data\App:ro", "E:/"))
    assert own == Share("home", r"C:\Users\ana", "/c/Users/ana", ("/mnt/c/Users/ana",), False)
    assert data[1:] == (r"D:\Data\App", "/d/Data/App", ("/mnt/d/Data/App",), True, "")
    assert drive[1:4] == ("E:\\", "/e", ("/mnt/e",))
    monkeypatch.setattr(Path, "samefile", lambda _path, other: other == r"C:\Users\ana")
    assert find([own, data, drive], r"c:\users\ANA\x") == own
    assert find([own, data, drive], "E:\\x") == drive and sharing.in_guest(drive, "E:\\x") == "/e/x"
    assert find([own, data, drive], r"C:\Users\anabel") is None
    assert sharing.shown(r"C:\Users\ana\x") == r"~\x"


def test_guest_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    assert guest_path("/srv/x") == "/srv/x"
    on_windows(monkeypatch)
    assert [guest_path(path) for path in (r"C:\Users\x", "c:/Users/x", r"\\?\C:\Users\x", "D:\\")] == [
        "/c/Users/x", "/c/Users/x", "/c/Users/x", "/d",
    ]  # fmt: skip
    assert [windows.local_path(path) for path in ("/c/Users/x", "/mnt/d/y", "/c", "/srv/x")] == [
        r"C:\Users\x", r"D:\y", "C:\\", "/srv/x",
    ]  # fmt: skip
    on_macos(monkeypatch)
    assert guest_path("/private/tmp/x") == "/tmp/x" and guest_path("/private/tmpx") == "/private/tmpx"


def test_whole_paths(user: Path) -> None:
    assert [whole(path, "/srv/a") for path in ("x", "../x/", ".", "~/x", "~", "/y//z", "~x")] == [
        "/srv/a/x", "/srv/x", "/srv/a", f"{user}/x", str(user), "/y/z", "/srv/a/~x",
    ]  # fmt: skip


def refusal(path: str) -> WherryError:
    with pytest.raises(WherryError) as caught:
        check(path)
    assert caught.value.hint
    return caught.value


def test_what_can_be_shared(user: Path) -> None:
    (user / ".aws").mkdir()
    (user / "link").symlink_to(user / ".aws")
    for path in (user, user / ".aws", user / "link", user.parent):
        check(str(path))


@pytest.mark.parametrize(
    "path",
    ["/", "/bin", "/boot", "/dev", "/dev/shm", "/etc/x", "/lib", "/lib64", "/proc/1", "/run", "/run/user/1", "/sbin", "/sys",
     "/usr", "/usr/local", "/var", "/var/lib", "/var/lib/docker/x", "/var/lib/containerd", "/var/lib/wherry", "/tmp",
     "/var/run/x"],
)  # fmt: skip
def test_the_machines_own(path: str) -> None:
    assert isinstance(refusal(path), Refused) and "the machine has its own" in refusal(path).message


def test_a_link_to_the_machines_own(user: Path) -> None:
    (user / "system").symlink_to("/usr/share")
    assert refusal(f"{user}/system").message == (
        f"{user}/system, which is /usr/share, cannot be shared: the machine has its own /usr/share."
    )


def test_what_is_no_folder(user: Path) -> None:
    (user / "file").touch()
    assert "there is no folder" in refusal(f"{user}/none").message
    assert refusal(f"{user}/file").hint == f"Share its folder: wherry share add {user}"
    assert "control character" in refusal(f"{user}/a\nb").message
    assert "not UTF-8" in refusal(os.fsdecode(b"/srv/a\xff")).message
    assert isinstance(refusal(r"\\server\share"), Usage) and "network path" in refusal("//server/share").message


@pytest.mark.parametrize("inner", ["", "machines/default"])
def test_wherrys_own(user: Path, inner: str) -> None:
    (own := user.parent.parent / "wherry" / inner).mkdir(parents=True)
    assert "wherry's own" in refusal(str(own)).message


def test_what_is_plugged_in_can_be_shared() -> None:
    assert "there is no folder" in refusal("/run/media/ana/USB-none").message
