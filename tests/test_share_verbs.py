"""share list, add, remove; --share and --no-home; the lines of up and status."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher import privacy, sharing, store
from launcher.config import Shares
from launcher.errors import Usage
from launcher.keeper.proxy.folders import Folders
from launcher.keeper.proxy.refusal import Refusal
from launcher.machine import create, shares
from launcher.machine.create import UpOptions
from tests.conftest import Said
from tests.fakes import FakeKeeper, make_machine

Wherry = Callable[..., Said]


@pytest.fixture
def user(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home, with a folder beside it where we are."""
    made = tmp_path.resolve() / "ana"
    made.mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HOME", str(made))
    monkeypatch.chdir(tmp_path)
    return made


def data(said: Said) -> Any:
    assert said.code == 0, said
    return json.loads(said.out)["data"]


def folders(name: str = "default") -> list[str]:
    return list(store.machine(name).read_config().shares.folders)


def test_a_machine_that_is_stopped(wherry: Wherry, user: Path) -> None:
    make_machine()
    beside = f"{user.parent}/data"
    said = wherry("share", "add", "data:ro")
    assert (said.code, said.out, said.err) == (0, "", f"{beside} is shared with default, read-only from its next start on.\n")
    assert folders() == [f"{beside}:ro"]
    first, second = data(wherry("share", "list", "--json"))
    assert (first["id"], first["path"], first["read_only"], first["state"]) == ("home", str(user), False, "stopped")
    assert (second["path"], second["guest"], second["read_only"], second["inside"]) == (beside, beside, True, "")
    assert data(wherry("share", "remove", "./data/", "--json")) == {
        "removed": beside, "changed": True, "read_only": False, "running": False, "why": "", "again": False,
    }  # fmt: skip
    assert folders() == [] and "[shares]" not in store.machine("default").config_file.read_text()


def test_a_machine_that_runs_is_told(wherry: Wherry, user: Path, keeper: FakeKeeper) -> None:
    said = wherry("share", "add", "data")
    assert said.err == f"{user.parent}/data is shared with default, read-write.\n"
    asked = [request for request in keeper.requests if request["verb"] == "shares"]
    assert [request.get("reload", False) for request in asked] == [True, False]
    listing = wherry("share", "list").out
    assert [line.split() for line in listing.splitlines()] == [
        ["FOLDER", "MODE", "IN", "THE", "MACHINE", "STATE", "HIDDEN"],
        [str(user), "read-write", str(user), "served", "9"],
        [f"{user.parent}/data", "read-write", f"{user.parent}/data", "served", "9"],
    ]
    keeper.requests.clear()
    assert wherry("share", "remove", "data").code == 0
    assert [request for request in keeper.requests if request.get("reload")] and folders() == []


def test_which_are_over_virtiofs_is_said(wherry: Wherry, user: Path, keeper: FakeKeeper) -> None:
    from launcher.cli.verbs.share import lines_of

    assert "VIRTIOFS" not in wherry("share", "list").out
    keeper.shares = {"virtiofs": False, "why": "it holds private places"}
    heads, line = wherry("share", "list").out.splitlines()
    assert heads.split()[-1] == "VIRTIOFS" and line.endswith("no: it holds private places")
    keeper.shares = {"virtiofs": True, "why": ""}
    assert wherry("share", "list").out.splitlines()[1].split()[-1] == "yes"
    assert lines_of(data(wherry("share", "list", "--json"))) == [
        f"shares    {user} (read-write, virtiofs, 9 private places hidden)"
    ]


def test_a_share_that_fails_is_said_and_stays(wherry: Wherry, user: Path, keeper: FakeKeeper) -> None:
    keeper.shares = {"state": "failed", "detail": "it is on fire"}
    said = wherry("share", "add", "data")
    assert (said.code, "data could not be shared: it is on fire" in said.err) == (1, True)
    assert folders() == [f"{user.parent}/data"]


def test_another_mode(wherry: Wherry, user: Path) -> None:
    make_machine()
    beside = f"{user.parent}/data"
    for word, written in (("data", beside), ("data:ro", f"{beside}:ro"), ("data/.:rw", beside)):
        assert wherry("share", "add", word).code == 0
        assert folders() == [written]
    said = wherry("share", "add", "data", "--json")
    assert data(said)["changed"] is False and data(said)["why"] == f"{beside} is shared read-write already."


def test_another_mode_of_a_share_in_use(wherry: Wherry, user: Path, keeper: FakeKeeper) -> None:
    assert wherry("share", "add", "data").err.count("\n") == 1
    assert "must be started again" in wherry("share", "add", "data:ro").err
    assert "must be started again" not in wherry("share", "add", "data:ro").err


def test_the_home_itself(wherry: Wherry, user: Path) -> None:
    make_machine()
    assert "~ is shared read-write already" in wherry("share", "add", "~").err
    assert wherry("share", "add", "~:ro").code == 0 and folders() == [f"{user}:ro"]
    said = wherry("share", "remove", str(user))
    assert (said.code, "wherry config set shares.home false" in said.err) == (2, True)
    assert wherry("share", "add", "~").code == 0 and folders() == []
    assert wherry("config", "set", "shares.home", "false").code == 0
    assert wherry("share", "add", "~").code == 0 and folders() == [str(user)]
    assert wherry("share", "remove", "~").code == 0 and folders() == []


def test_what_lies_in_a_share(wherry: Wherry, user: Path) -> None:
    make_machine()
    (user / "code/lib").mkdir(parents=True)
    assert wherry("share", "add", "~/code").err == "~/code is in ~, which is shared read-write.\n"
    assert folders() == []
    assert wherry("share", "add", "~/code:ro").code == 0
    assert wherry("share", "add", "~/code/lib:ro").err == "~/code/lib is in ~/code, which is shared read-only.\n"
    assert wherry("share", "add", "~/code/lib").code == 0
    assert folders() == [f"{user}/code:ro", f"{user}/code/lib"]
    listing = wherry("share", "list").out.splitlines()
    assert listing[2].split()[:4] == [f"{user}/code", "read-only", "in", str(user)]
    said = wherry("share", "remove", "~/code/none")
    assert (said.code, f"is in {user}/code, and no share of its own" in said.err) == (2, True)
    assert f"wherry share remove {user}/code" in said.err


@pytest.mark.parametrize(
    ("folder", "code", "words"),
    [("none", 2, "there is no folder"), ("/usr", 6, "the machine has its own /usr"), ("file", 2, "is no folder"),
     ("home/machines", 6, "wherry's own"), ("//server/x", 2, "network path"), ("/", 6, "the machine has its own /")],
)  # fmt: skip
def test_what_cannot_be_shared(folder: str, code: int, words: str, wherry: Wherry, user: Path) -> None:
    make_machine()
    (user.parent / "file").touch()
    said = wherry("share", "add", folder)
    assert (said.code, words in said.err, folders()) == (code, True, [])


def test_no_folder_is_never_the_one_where_we_are(wherry: Wherry, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script's unset variable would share the home."""
    make_machine()
    monkeypatch.chdir(user)
    for words in (("add", ""), ("add", ":ro"), ("remove", "")):
        said = wherry("share", *words)
        assert (said.code, "names no folder" in said.err, folders()) == (2, True, [])
    assert wherry("up", "--share", "").code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be removed")
def test_where_we_are_is_gone(wherry: Wherry, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_machine()
    (user / "gone").mkdir()
    monkeypatch.chdir(user / "gone")
    (user / "gone").rmdir()
    for word in ("add", "remove"):
        said = wherry("share", word, ".")
        assert (said.code, "the folder where you are is not there any more" in said.err) == (2, True)


@pytest.mark.parametrize("end", [":/data", ":/data:ro", ":RO", ":ro,z"])
def test_a_target_as_docker_has_it_is_told_apart_from_a_folder_that_is_not_there(end: str, wherry: Wherry, user: Path) -> None:
    make_machine()
    said = wherry("share", "add", f"data{end}")
    assert (said.code, "Only :ro or :rw may follow" in said.err) == (2, True)
    assert "must be there before" in wherry("share", "add", f"none{end}").err


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is closed to root, or to this system's user"
)
def test_a_folder_that_is_closed_to_the_user(wherry: Wherry, user: Path) -> None:
    make_machine()
    (user / "shut/in").mkdir(parents=True)
    (user / "shut").chmod(0)
    for folder in ("~/shut", "~/shut/in"):
        said = wherry("share", "add", folder)
        assert (said.code, f"{user}/{folder[2:]} is closed to you" in said.err) == (2, True)


def test_a_private_file_is_shared_by_its_name(wherry: Wherry, user: Path) -> None:
    make_machine()
    (user / ".aws").mkdir()
    for name in (".netrc", ".aws/credentials", "plain"):
        (user / name).touch()
        assert wherry("share", "add", f"~/{name}:ro").code == 0
        assert wherry("share", "add", f"~/{name}:ro").err == f"~/{name} is shared read-only already.\n"
    assert [(share["path"], share["inside"]) for share in data(wherry("share", "list", "--json"))[1:]] == [
        (f"{user}/{name}", "home") for name in (".netrc", ".aws/credentials", "plain")
    ]
    assert wherry("share", "remove", "~/.netrc").err.startswith("~/.netrc is hidden from the machine again.")
    assert create._shares(UpOptions(share=("~/.netrc",))).folders == (f"{user}/.netrc",)
    with pytest.raises(Usage, match="is no folder"):
        create._shares(UpOptions(share=("~/.netrc",), no_home=True))


def test_a_file_beside_the_shares_is_none(wherry: Wherry, user: Path) -> None:
    make_machine()
    (user.parent / "data/a b").mkdir()
    (user.parent / "data/a b/file").touch()
    said = wherry("share", "add", "data/a b/file")
    assert (said.code, f"wherry share add '{user.parent}/data/a b'" in said.err) == (2, True)


def test_what_is_left_of_a_share_in_a_share(wherry: Wherry, user: Path) -> None:
    make_machine()
    (user / "code").mkdir()
    assert wherry("share", "add", "~/code:ro").code == 0
    said = wherry("share", "remove", "~/code:ro")
    assert said.err == "~/code is no share of its own any more: it is in ~, which is shared read-write.\n"


def test_a_folder_of_the_home_is_taken_from_the_machine_by_hiding_it(wherry: Wherry, user: Path) -> None:
    """The home as a whole is more than what was named, and no way to answer a typing error."""
    make_machine()
    (user / "a b").mkdir()
    assert wherry("config", "set", "shares.hidden=~/x").code == 0
    said = wherry("share", "remove", "~/a b")
    assert (said.code, "shares.home" in said.err) == (2, False)
    assert f"wherry config set 'shares.hidden=~/x,{user}/a b'" in said.err
    said = wherry("share", "remove", "~/typo")
    assert ("config set" in said.err, "wherry share list" in said.err) == (False, True)


def test_no_such_share_and_no_such_machine(wherry: Wherry, user: Path) -> None:
    for words in (("list",), ("add", "data"), ("remove", "data")):
        assert wherry("share", *words).code == 3
    make_machine()
    said = wherry("share", "remove", "data")
    assert (said.code, "data is not shared" in said.err, "wherry share list" in said.err) == (2, True, True)
    assert wherry("share", "remove", "~/x").code == 2
    assert "wherry share add" in wherry("share", "ad", "x").err


def test_another_machine_is_named_in_what_comes_next(wherry: Wherry, user: Path) -> None:
    make_machine("work")
    assert "shared with work" in wherry("--machine", "work", "share", "add", "data").err
    assert folders("work") == [f"{user.parent}/data"]
    assert "wherry --machine work share list" in wherry("--machine", "work", "share", "remove", "x").err
    assert len(data(wherry("share", "list", "work", "--json"))) == 2


def test_a_folder_that_is_gone_can_be_removed(wherry: Wherry, user: Path) -> None:
    make_machine()
    assert wherry("share", "add", "data").code == 0
    (user.parent / "data").rmdir()
    assert wherry("share", "remove", "data").code == 0 and folders() == []


def test_many_at_once_all_arrive(user: Path) -> None:
    make_machine()
    for number in range(6):
        (user.parent / f"d{number}").mkdir()
    threads = [threading.Thread(target=shares.add, args=("default", f"{user.parent}/d{number}", False)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(folders()) == [f"{user.parent}/d{number}" for number in range(6)]


def test_a_comma_in_a_name(wherry: Wherry, user: Path) -> None:
    make_machine()
    (user.parent / 'a, "b"').mkdir()
    assert wherry("share", "add", 'a, "b"').code == 0
    assert folders() == [f'{user.parent}/a, "b"']


def test_a_new_machine(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = create._shares(UpOptions(share=("data:ro", "~"), no_home=True))
    assert made == Shares(False, (f"{user.parent}/data:ro", str(user)))
    assert create._shares(UpOptions()) == Shares()


def test_up_of_a_machine_that_runs(wherry: Wherry, user: Path, keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.images.restore", lambda *_: None)
    said = wherry("up", "--share", "data", "--share", "~", "--no-home")
    assert said.code == 0, said
    assert keeper.directory.read_config().shares == Shares(False, (f"{user.parent}/data", str(user)))
    assert len([request for request in keeper.requests if request.get("reload")]) == 3
    assert f"  shares    {user} (read-write, 9 private places hidden)\n            {user.parent}/data (read-write" in said.err
    assert "from its next start on" not in said.err
    assert wherry("up", "--share", "none").code == 2


def test_what_up_says_twice_is_told_as_such(user: Path) -> None:
    make_machine()
    first, second = shares.change_for_up("default", ["data", "data"], False)
    assert (first.changed, second.changed) == (True, False)
    assert second.why == f"{user.parent}/data is shared read-write already."


def test_status(wherry: Wherry, user: Path, keeper: FakeKeeper) -> None:
    (user / "ro").mkdir()
    assert wherry("share", "add", "~/ro:ro").code == 0
    keeper.shares = {"hidden": 1}
    assert f"\nshares    {user} (read-write, 1 private place hidden)\n" in wherry("status").out
    keeper.shares = {"hidden": 0, "state": "failed", "detail": "no"}
    assert f"\nshares    {user} (read-write, FAILED: no)\n" in wherry("status").out
    assert data(wherry("status", "--json"))["shares"][0]["id"] == "home"


def test_status_of_what_is_stopped_or_broken(wherry: Wherry, user: Path) -> None:
    directory = make_machine()
    assert f"shares    {user} (read-write" in wherry("status").out
    directory.config_file.write_text("nonsense")
    said = wherry("status", "--json")
    assert said.code == 1 and json.loads(said.out)["data"]["shares"] is None


def test_a_private_place_is_shared_by_its_name(wherry: Wherry, user: Path) -> None:
    make_machine()
    for name in ("secrets", "secrets/in", ".config"):
        (user / name).mkdir()
    assert wherry("config", "set", "shares.hidden", "~/secrets").code == 0
    assert data(wherry("share", "list", "--json"))[0]["hidden"] == 1
    assert wherry("share", "list").out.endswith("\n\nHidden: ~/secrets\n")
    assert wherry("share", "add", "~/secrets/in").code == 0  # else it would be in the home already
    assert wherry("share", "add", "~/secrets/in").err == "~/secrets/in is shared read-write already.\n"
    assert folders() == [f"{user}/secrets/in"]
    assert wherry("share", "add", "~/secrets:ro").code == 0
    assert wherry("share", "add", "~/.config").err == "~/.config is in ~, which is shared read-write.\n"
    assert data(wherry("share", "list", "--json"))[0]["hidden"] == 0 and "Hidden" not in wherry("share", "list").out


def test_wherrys_own_folders_are_hidden(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERRY_HOME", str(user / ".wherry"))
    directory = make_machine()
    config = directory.read_config().changed(shares=Shares(hidden=(f"-{user}/.wherry",)))
    private = privacy.Private(sharing.shares_of(config), privacy.hidden_places(config))
    assert private.place(str(directory.path)) == "~/.wherry"
    with pytest.raises(Refusal, match=r"~/.wherry is hidden from the machine. .* is wherry's own") as caught:
        Folders(lambda: sharing.shares_of(config), private.place).source("x", str(directory.path), makes=True)
    assert "share add" not in caught.value.message


def test_the_usual_private_places(wherry: Wherry, user: Path) -> None:
    make_machine()
    for name in (".aws", ".kube", ".cache"):
        (user / name).mkdir()
        (user / name / "config").touch()

    def refused(path: str) -> str:
        config = store.machine("default").read_config()
        private = privacy.Private(sharing.shares_of(config), privacy.hidden_places(config))
        try:
            Folders(lambda: sharing.shares_of(config), private.place).source("x", path, makes=True)
        except Refusal as refusal:
            return refusal.message
        return ""

    words = "is private and hidden from the machine. To give it to containers:  wherry share add"
    assert f"shares    {user} (read-write, 2 private places hidden)" in wherry("status").out
    assert refused(f"{user}/.aws/config") == f"~/.aws {words} ~/.aws:ro" and refused(f"{user}/.cache") == ""
    assert refused(f"{user}/.ssh/id") == f"~/.ssh {words} ~/.ssh:ro"  # also when it is not there
    assert wherry("share", "add", "~/.aws:ro").err == "~/.aws is shared with default, read-only from its next start on.\n"
    assert [share["path"] for share in data(wherry("share", "list", "--json"))] == [str(user), f"{user}/.aws"]
    assert refused(f"{user}/.aws/config") == "" and "cannot be made" in refused(f"{user}/.aws/new")
    assert wherry("config", "set", "shares.hidden=-~/.kube,~/.cache").code == 0
    assert refused(f"{user}/.kube/config") == "" and refused(f"{user}/.cache") == f"~/.cache {words} ~/.cache:ro"
    assert wherry("share", "remove", "~/.aws").code == 0 and wherry("config", "unset", "shares.hidden").code == 0
    assert refused(f"{user}/.aws") and refused(f"{user}/.kube") and not refused(f"{user}/.cache")


def test_what_holds_a_share_is_not_shared_while_the_machine_runs(wherry: Wherry, user: Path, keeper: FakeKeeper) -> None:
    """Its place in the machine would go away under the containers that use it."""
    (user / "code").mkdir()
    said = wherry("share", "add", str(user.parent))
    assert (said.code, f"{user.parent} holds {user}, which is shared already" in said.err, folders()) == (6, True, [])
    assert wherry("share", "add", "~/code:ro").code == 0  # what lies in a share is no place of its own
    assert wherry("config", "set", "shares.home=false").code == 0
    assert wherry("config", "set", "shares.home=true").code == 6  # now it has one
    keeper.let_go()
    assert wherry("share", "add", str(user.parent)).code == 0
