"""Bind sources against the folders that are shared: translated, or refused with the command that helps."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import host, sharing
from launcher.config import GIB, MachineConfig, Shares
from launcher.host import macos
from launcher.keeper.proxy import paths
from launcher.keeper.proxy.create import Rules, check_start, rewrite
from launcher.keeper.proxy.creation import Creation
from launcher.keeper.proxy.folders import Folders
from launcher.keeper.proxy.refusal import Refusal
from launcher.sharing import Share, shares_of


class Place:
    """A home and what is around it; shares and private places can be changed at any time."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.home = base / "home"
        self.home.mkdir()
        self.config = ["~"]
        self.private: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.machine = "default"

    @property
    def shares(self) -> list[Share]:
        return shares_of(MachineConfig("amd64", 1, GIB, "0" * 64, shares=Shares(False, tuple(self.config))))

    def hidden(self, path: str) -> str:
        found = (words for place, words in self.private.items() if path == place or path.startswith(f"{place}/"))
        return next(found, "")

    def rewrite(self, body: dict[str, Any]) -> dict[str, Any]:
        folders = Folders(lambda: self.shares, self.hidden, lambda name: self.failed.get(name, ""), self.machine)
        made: dict[str, Any] = json.loads(rewrite(json.dumps(body).encode(), Rules(folders=folders)))
        return made

    def bind(self, source: Path | str) -> str:
        found: str = self.rewrite({"HostConfig": {"Binds": [f"{source}:/x:z"]}})["HostConfig"]["Binds"][0]
        assert found.endswith(":/x:z")
        return found[:-5]

    def mount(self, source: Path | str, **options: Any) -> str:
        mount = {"Type": "bind", "Source": str(source), "Target": "/x", "BindOptions": options}
        found: str = self.rewrite({"HostConfig": {"Mounts": [mount]}})["HostConfig"]["Mounts"][0]["Source"]
        return found

    def refusal(self, source: Path | str) -> str:
        with pytest.raises(Refusal) as caught:
            self.bind(source)
        return caught.value.message


@pytest.fixture
def place(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path.resolve() / "x")
    monkeypatch.setenv("HOME", str(made.home))
    return made


@pytest.fixture(autouse=True)
def _base(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()


def test_what_is_in_a_share_passes(place: Place) -> None:
    (place.home / "a b").mkdir()
    (place.home / "file").touch()
    for source in (place.home, place.home / "a b", place.home / "file"):
        assert place.bind(source) == place.mount(source) == str(source)
    assert place.bind(f"{place.home}/./a b/../file/") == f"{place.home}/file"


def test_a_body_in_which_nothing_changes_keeps_its_bytes(place: Place) -> None:
    body = json.dumps({"HostConfig": {"Binds": [f"{place.home}:/x"]}}, indent=3).encode()
    assert rewrite(body, Rules(folders=Folders(lambda: place.shares))) == body


def test_links_count_as_what_they_lead_to(place: Place) -> None:
    (place.home / "code").mkdir()
    (place.home / "inner").symlink_to("code")
    (place.home / "outer").symlink_to(place.base)
    (outside := place.base / "way").symlink_to(place.home / "code")
    assert place.bind(place.home / "inner") == place.bind(outside) == str(place.home / "code")
    assert place.refusal(place.home / "outer") == (
        f"{place.home}/outer leads to {place.base}, which is not shared with the machine, "
        f"the container would see an empty folder.\n        wherry share add {place.base}        (no restart needed)"
    )


def test_a_home_behind_a_link(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (link := place.base / "here").symlink_to(place.home)
    monkeypatch.setenv("HOME", str(link))
    assert place.bind(link / "new") == str(place.home / "new")


@pytest.mark.parametrize("machine", ["default", "work"])
def test_what_is_not_shared_names_the_command(place: Place, machine: str) -> None:
    (folder := place.base / "Data app").mkdir()
    (folder / "file").touch()
    place.machine = machine
    wherry = "wherry" if machine == "default" else "wherry --machine work"
    command = f"\n        {wherry} share add '{folder}'        (no restart needed)"
    ending = f"is not shared with the machine, the container would see an empty folder.{command}"
    assert place.refusal(folder) == f"{folder} {ending}"
    assert place.refusal(folder / "file") == f"{folder}/file {ending}"
    making = f"\n        mkdir -p '{folder}/a/b' && {wherry} share add '{folder}/a/b'"
    assert place.refusal(folder / "a/b") == (  # and nothing that holds more
        f"{folder}/a/b is not there, and not shared with the machine: the container would see an empty folder.{making}"
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_is_closed_to_the_user(place: Place) -> None:
    (folder := place.home / "shut").mkdir(mode=0)
    assert place.refusal(folder) == (
        f"{folder} is closed to you: the container would see an empty folder.\n        ls -ld {folder}"
    )
    folder.chmod(0o700)
    assert place.bind(folder) == str(folder)


def test_a_folder_that_the_system_keeps_from_us(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := place.home / "Documents").mkdir()
    kept = {str(folder): ("macOS keeps it from wherry", "System Settings")}
    monkeypatch.setattr(host.current(), "withheld", kept.get)
    assert (
        place.refusal(folder) == "macOS keeps it from wherry: the container would see an empty folder.\n        System Settings"
    )
    assert place.bind(place.home) == str(place.home)


def test_the_machines_own_places_have_no_command(place: Place) -> None:
    for source in ("/", "/etc", "/etc/passwd", "/usr/share"):
        message = place.refusal(source)
        assert "is not shared" in message and "the machine has its own" in message and "wherry share add" not in message
    made = place.refusal("/tmp/none-of-that-name/x")
    assert "mkdir -p /tmp/none-of-that-name/x && wherry share add /tmp/none-of-that-name/x" in made


def test_a_place_of_the_machine_that_is_not_here_has_no_command(place: Place) -> None:
    words = place.refusal("/run/none-of-that-name")
    assert "the machine has its own /run/none-of-that-name" in words and "share add" not in words


def test_what_is_only_here_under_tmp_is_refused_with_the_command(place: Place) -> None:
    assert place.base.is_relative_to("/tmp")
    assert f"wherry share add {place.base}        (no restart needed)" in place.refusal(place.base)
    place.config.append(str(place.base))
    assert place.bind(place.base) == str(place.base)


def test_what_is_missing_is_made_in_a_share_that_can_be_written(place: Place) -> None:
    assert place.bind(place.home / "new/x") == str(place.home / "new/x")
    (place.home / "dangling").symlink_to(place.home / "none")
    assert place.bind(place.home / "dangling") == str(place.home / "none")
    place.config = ["~:ro"]
    assert place.refusal(place.home / "new") == (
        f"{place.home}/new does not exist, and cannot be made: ~ is shared read-only.\n        mkdir -p {place.home}/new"
    )
    assert place.mount(place.home / "new") == str(place.home / "new")  # the engine says that it is not there
    with pytest.raises(Refusal, match="cannot be made"):
        place.mount(place.home / "new", CreateMountpoint=True)
    assert place.bind(place.home) == str(place.home)  # without :ro: the share refuses to write


def test_a_read_only_folder_in_a_share_that_can_be_written(place: Place) -> None:
    (place.home / "ro").mkdir()
    place.config = ["~", "~/ro:ro"]
    assert "~/ro is shared read-only" in place.refusal(place.home / "ro/new")
    assert place.bind(place.home / "ro") == str(place.home / "ro")


@pytest.mark.parametrize("inner", ["", "/config", "/none/x"])
def test_what_is_private_says_how_to_give_it(place: Place, inner: str) -> None:
    (place.home / ".aws").mkdir()
    (place.home / ".aws/config").touch()
    (place.home / "link").symlink_to(".aws")
    place.private = {str(place.home / ".aws"): "~/.aws"}
    words = "~/.aws is private and hidden from the machine. To give it to containers:  wherry share add ~/.aws:ro"
    assert place.refusal(f"{place.home}/.aws{inner}") == place.refusal(f"{place.home}/link{inner}") == words
    place.machine = "work"
    assert "wherry --machine work share add" in place.refusal(f"{place.home}/.aws{inner}")
    place.private = {}
    place.config.append("~/.aws:ro")
    if inner != "/none/x":
        assert place.bind(f"{place.home}/link{inner}") == f"{place.home}/.aws{inner}"


def test_changes_hold_at_once(place: Place) -> None:
    folders = Folders(lambda: place.shares, place.hidden)
    assert folders.source("x", str(place.home), makes=True) == str(place.home)
    place.config = []
    with pytest.raises(Refusal):
        folders.source("x", str(place.home), makes=True)


def test_a_share_that_the_machine_does_not_have_now(place: Place) -> None:
    place.failed = {"home": "it could not be mounted"}
    assert "is shared with the machine, which does not have it now: it could not be mounted" in place.refusal(place.home)


@pytest.fixture
def special(place: Place) -> Iterator[list[Path]]:
    os.mkfifo(place.home / "pipe")
    made = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(place.home)  # the whole path may be too long for a socket
    try:
        made.bind("s")
    finally:
        os.chdir(here)
    yield [place.home / "pipe", place.home / "s"]
    made.close()


def test_what_is_no_file_means_nothing_in_the_machine(place: Place, special: list[Path]) -> None:
    for source, kind in zip(special, ("a pipe", "a socket"), strict=True):
        assert place.refusal(source) == f"{source} is {kind} of this computer, and means nothing in the machine."


def start(place: Place, source: Path | str) -> None:
    folders = Folders(lambda: place.shares, place.hidden, lambda name: place.failed.get(name, ""), place.machine)
    check_start({"Mounts": [{"Type": "bind", "Source": str(source)}, {"Type": "tmpfs"}]}, Rules(folders=folders))


def test_a_container_that_starts_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (link := place.base / "here").symlink_to(place.home)
    monkeypatch.setenv("HOME", str(link))
    for source in (place.home, place.home / "gone", link / "x", "/run/docker.sock", "/var/lib/wherry/work/x", "/none/of/ours"):
        start(place, source)
    start(place, "/etc")  # of the machine: of this computer it could not have been
    place.failed = {"home": "it is gone"}
    with pytest.raises(Refusal, match="does not have it now: it is gone"):
        start(place, place.home / "x")
    place.config = []
    (place.home / "file").touch()
    for source, folder in ((place.home, place.home), (place.home / "file", place.home)):
        with pytest.raises(Refusal) as caught:
            start(place, source)
        assert caught.value.message == (
            f"{source} is not shared with the machine any more, the container would see an empty folder."
            f"\n        wherry share add {folder}        (no restart needed)"
        )


def volume(place: Place, options: dict[str, str], **more: Any) -> Any:
    return place.rewrite({"Name": "v", "DriverOpts": options, **more})["DriverOpts"]


def test_a_volume_that_is_a_folder(place: Place) -> None:
    (place.base / "way").symlink_to(place.home)
    bind = {"type": "none", "o": "rw,bind", "device": str(place.base / "way")}
    for driver in ({}, {"Driver": "local"}, {"Driver": ""}):
        assert volume(place, bind, **driver)["device"] == str(place.home)
    assert volume(place, {**bind, "o": "RBIND"})["device"] == str(place.home)
    for other in (
        {"type": "nfs", "o": "addr=1.2.3.4", "device": ":/etc"}, {"type": "tmpfs", "device": "tmpfs"}, {"o": "bind"},
    ):  # fmt: skip
        assert volume(place, other) == other
    foreign = {**bind, "device": str(place.base)}
    assert volume(place, foreign, Driver="sshfs") == foreign
    with pytest.raises(Refusal, match="wherry share add"):
        volume(place, foreign)


def test_a_volume_that_is_a_folder_in_a_mount(place: Place) -> None:
    def mounted(device: Path, name: str = "local") -> Any:
        config = {"Name": name, "Options": {"type": "none", "o": "bind", "device": str(device)}}
        mount = {"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": config}}
        made = place.rewrite({"HostConfig": {"Mounts": [mount]}})["HostConfig"]["Mounts"][0]
        return made["VolumeOptions"]["DriverConfig"]["Options"]["device"]

    (place.base / "way").symlink_to(place.home)
    assert mounted(place.base / "way") == str(place.home)
    assert mounted(place.base, "sshfs") == str(place.base)
    with pytest.raises(Refusal, match="wherry share add"):
        mounted(place.base)


def test_no_ports_are_chosen_for_a_volume() -> None:
    assert paths.makes_volume(b"POST", b"/v1.44/volumes/create") and not paths.makes_volume(b"GET", b"/volumes/create")
    assert not paths.names_mounts(b"POST", b"/volumes/create")
    assert Creation(Rules(), None).rewrite(b'{"Name": "v"}') == b'{"Name": "v"}'


def test_macos_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both names of what is behind the links of its root, and letters of another case."""
    made = {"/var": "/private/var", "/tmp": "/private/tmp"}

    def real(path: str) -> str:
        return next((target + path[len(link) :] for link, target in made.items() if path.startswith(f"{link}/")), path)

    known = {**vars(macos), "real_path": real, "home": lambda: "/Users/ana"}
    monkeypatch.setattr(host, "current", lambda: SimpleNamespace(**known))
    monkeypatch.setattr(sharing, "_is_really", lambda _share, _path: True)
    shares = [
        Share("home", "/Users/ana", "/Users/ana", (), False),
        Share("t", "/private/var/folders/zz/T", "/var/folders/zz/T", ("/private/var/folders/zz/T",), False),
    ]
    folders = Folders(lambda: shares)
    for said, inside in (
        ("/Users/ana/x", "/Users/ana/x"), ("/users/ANA/X", "/Users/ana/X"), ("/var/folders/zz/T/a", "/var/folders/zz/T/a"),
        ("/private/var/folders/zz/T/a", "/var/folders/zz/T/a"),
    ):  # fmt: skip
        assert folders.source(said, said, makes=True) == inside
    with pytest.raises(Refusal, match="mkdir -p /private/tmp/x && wherry share add"):
        folders.source("/tmp/x", "/tmp/x", makes=True)
