"""`wherry uninstall`: nothing leads to wherry afterwards, and no machine goes that its user did not give up."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher import host, store
from launcher.dockerhome import Context, DockerHome
from launcher.machine import context, links
from tests.conftest import Said
from tests.fakes import FakeKeeper, make_iso, make_machine
from tests.test_links import places, user

__all__ = ["user"]  # a fixture
Wherry = Callable[..., Said]


def config(tmp_path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((tmp_path / "docker" / "config.json").read_text())
    return data


def test_nothing_is_left_to_lead_to_wherry(user: Path, wherry: Wherry, tmp_path: Path) -> None:
    make_machine("dev")
    DockerHome().write(Context("colima", "unix:///nowhere"))
    DockerHome().make_current("colima")
    context.use("default")
    context.use("dev")  # whose one before is wherry's own
    for place in places(user):
        place.parent.mkdir(parents=True, exist_ok=True)
    places(user)[0].symlink_to("/gone/docker.sock")
    assert wherry("link", "docker").code == 0 and wherry("link", "socket").code == 0
    said = wherry("uninstall", "--keep")
    assert (said.code, said.out) == (0, ""), said
    assert "docker context wherry is removed; current: colima\n" in said.err
    assert DockerHome().names() == ["colima"] and config(tmp_path)["currentContext"] == "colima"
    assert places(user)[0].readlink() == Path("/gone/docker.sock") and not os.path.lexists(places(user)[1])
    assert not (user / ".local" / "bin" / "docker").exists() and links.listing() == []
    assert "wherry" not in (tmp_path / "docker" / "config.json").read_text()
    assert "default is kept.\n" in said.err and "dev is kept.\n" in said.err and f"Left: {store.home()}\n" in said.err
    assert said.err.splitlines()[-1].startswith("The program itself goes by:  ")
    assert [directory.name for directory in store.machines()] == ["default", "dev"]
    again = wherry("uninstall", "--keep")
    assert again.code == 0 and "removed" not in again.err


def test_with_nobody_to_ask_machines_are_kept(home: Path, wherry: Wherry) -> None:
    directory = make_machine("old")
    said = wherry("uninstall")
    assert said.code == 0 and "old is kept: there is nobody to ask.\n" in said.err
    heads, row = (line.split() for line in said.err.splitlines()[:2])
    assert heads == ["MACHINE", "STATUS", "SIZE", "FOLDER"] and (row[0], row[1], row[-1]) == (
        "old",
        "stopped",
        str(directory.path),
    )
    data = json.loads(wherry("uninstall", "--json").out)["data"]
    assert data["deleted"] == [] and data["kept"][0]["name"] == "old" and data["left"] == [str(store.home())]
    assert directory.data_disk.exists()


def test_yes_deletes_what_is_whole_and_keeps_what_is_damaged(home: Path, wherry: Wherry) -> None:
    make_machine("good")
    bad = make_machine("bad")
    bad.config_file.write_text("cpus = nonsense")
    gone = make_machine("lost")
    gone.data_disk.unlink()
    said = wherry("uninstall", "--yes")
    assert said.code == 0 and [directory.name for directory in store.machines()] == ["bad", "lost"]
    assert "bad is kept, as it is broken: " in said.err and "wherry delete --force bad" in said.err
    assert "good is kept" not in said.err and "good is deleted.\n" in said.err


def test_of_the_last_machine_nothing_is_left(home: Path, wherry: Wherry, tmp_path: Path) -> None:
    make_machine()
    make_iso()
    (store.home() / "mine.txt").write_text("not wherry's")
    said = wherry("uninstall", "--yes")
    assert said.code == 0 and f"Left: {store.home()}\n" in said.err
    assert [path.name for path in store.home().iterdir()] == ["mine.txt"]
    (store.home() / "mine.txt").unlink()
    assert "Left" not in wherry("uninstall", "--yes").err
    assert not store.home().exists()
    assert wherry("uninstall").code == 0  # where nothing ever was, too


def test_two_answers_are_a_mistake(home: Path, wherry: Wherry) -> None:
    assert wherry("uninstall", "--yes", "--keep").code == 2


def test_a_machine_that_runs_is_not_stopped_unasked(keeper: FakeKeeper, wherry: Wherry) -> None:
    context.use("default")
    said = wherry("uninstall")
    assert said.code == 6 and "default runs, and would be stopped; nothing is done." in said.err
    assert DockerHome().current == "wherry"
    keeper.ends = True
    said = wherry("uninstall", "--keep")
    assert said.code == 0 and said.err.startswith("default is stopped.\n")
    assert not keeper.directory.run_dir.exists() and not host.current().run_base().exists()
    assert [request["force"] for request in keeper.requests if request["verb"] == "stop"] == [False]


def test_what_cannot_be_undone_is_said_and_keeps_nothing_else(user: Path, wherry: Wherry, tmp_path: Path) -> None:
    context.create("default")
    assert wherry("link", "docker").code == 0
    other = tmp_path / "other" / "machines" / "default"
    other.mkdir(parents=True)
    DockerHome().write(Context("wherry-other", "unix:///x", "", {"wherry": {"machine": str(other)}}))
    DockerHome().write(Context("wherry-gone", "unix:///x", "", {"wherry": {"machine": str(tmp_path / "gone")}}))
    (tmp_path / "docker" / "config.json").write_text("{")
    said = wherry("uninstall", "--keep")
    assert said.code == 1 and "docker's contexts: " in said.err and "cannot be read" in said.err
    assert not (user / ".local" / "bin" / "docker").exists()
    (tmp_path / "docker" / "config.json").unlink()
    said = wherry("uninstall", "--keep")
    assert said.code == 1 and f"WHERRY_HOME={tmp_path}/other wherry uninstall" in said.err
    assert DockerHome().names() == ["wherry-other"]


@pytest.mark.parametrize("answers", [b"n\n", b"y\n"])
def test_each_machine_is_asked_for_on_a_terminal(answers: bytes, home: Path) -> None:
    directory = make_machine("one")
    ours, theirs = pty.openpty()
    words = [str(Path(sys.executable).with_name("wherry")), "uninstall"]
    with subprocess.Popen(words, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE) as process:
        try:
            os.close(theirs)
            seen = b""
            while b"[y/N]: " not in seen:
                seen += os.read(ours, 4096)
            assert b"Delete one, with all images, containers and volumes in it (" in seen
            os.write(ours, answers)
            assert process.wait(60) == 0
        finally:
            process.kill()
            os.close(ours)
    assert directory.exists() == (answers == b"n\n")
