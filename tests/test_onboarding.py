"""`wherry up -f wherry.toml`: what it may say, what it changes, what it asks, and that it does nothing the second time."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from launcher import __version__, machine, store
from launcher.errors import NoProgress, Usage, WherryError
from launcher.machine import onboarding
from tests.conftest import Said
from tests.fakes import FakeKeeper, make_machine
from tests.isoserver import IsoServer, well

Wherry = Callable[..., Said]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a file of its own, outside of the home."""
    folder = tmp_path / "my project"
    (folder / "assets").mkdir(parents=True)
    (folder / "compose.yaml").write_text("services: {}\n")
    return folder


def write(project: Path, text: str) -> str:
    file = project / "wherry.toml"
    file.write_text(text)
    return str(file)


def config() -> Any:
    return store.machine("default").read_config()


# What a file may say.


def test_a_file_is_read_whole(project: Path) -> None:
    file = write(
        project,
        f"""
        requires = ">=0.0.1,<99"
        cpus = 1
        memory = "1G"
        images = ["postgres:16", "ghcr.example.com/a/b@sha256:{"0" * 64}", "postgres:16"]
        compose = "compose.yaml"
        stop_seconds = 9
        [shares]
        home = false
        folders = [".", "assets:ro"]
        [engine]
        labels = ["a=b"]
        log-opts = {{ max-size = "5m" }}
        [network]
        """,
    )
    wish = onboarding.read(file)
    assert wish.settings == {
        "cpus": 1, "memory": "1G", "stop_seconds": 9, "shares.home": False, "engine.labels": ["a=b"],
        "engine.log-opts.max-size": "5m",
    }  # fmt: skip
    assert wish.folders == (str(project), f"{project}/assets:ro")
    assert wish.images == ("postgres:16", f"ghcr.example.com/a/b@sha256:{'0' * 64}")
    assert wish.compose == project / "compose.yaml"


@pytest.mark.parametrize(
    ("text", "code", "line", "said"),
    [
        ("cpu = 2", 2, 1, "unknown key 'cpu', cpus is the nearest."),
        ("\n[share]\nhome = true", 2, 3, "unknown key 'share.home'"),
        ("[shares]\nfolder = ['.']", 2, 2, "unknown key 'shares.folder', shares.folders is the nearest."),
        ("[engine]\n\nregistry-mirror = ['https://a.example.com']", 2, 3, "engine.registry-mirrors is the nearest"),
        ("[engine]\nhosts = ['tcp://0.0.0.0']", 2, 2, "cannot be set"),
        ("[engine]\ninsecure-registries = ['http://a']", 2, 2, "is no registry"),
        ("engine = 3", 2, 1, "engine is a table"),
        ("cpus = '2'", 2, 1, "has the wrong type"),
        ("memory = 8", 2, 1, "has the wrong type"),
        ("memory = '8'", 2, 1, "is not a size"),
        ("qemu = './evil'", 2, 1, "is for the user to decide"),
        ("host_access = 'all'", 2, 1, "is for the user to decide"),
        ("[shares]\nhome = true", 2, 2, "can only be false"),
        ("[shares]\nhome = 1", 2, 2, "has the wrong type"),
        ("disk = '5G'", 2, 1, "is for the user to decide"),
        ("[shares]\nhidden = ['-~/.ssh']", 2, 2, "is for the user to decide"),
        ("[shares]\nfolders = ['~/.ssh/keys']", 2, 2, "is a private place"),
        ("[shares]\nfolders = ['gone']", 2, 2, "there is no folder"),
        ("[shares]\nfolders = ['/etc']", 2, 2, "cannot be shared"),
        ("[shares]\nfolders = '.'", 2, 2, "has the wrong type"),
        ("[shares]\nfolders = [':ro']", 2, 2, "names no folder"),
        ("cpus = 1\nimages = 'postgres'", 2, 2, "is no image"),
        ("images = ['--privileged']", 2, 1, "is no image"),
        ("images = ['a b']", 2, 1, "is no image"),
        ("compose = 'gone.yaml'", 2, 1, "there is no compose file"),
        ("compose = 3", 2, 1, "is no file"),
        ("requires = 1", 2, 1, "names no versions"),
        ("requires = 'new'", 2, 1, "names no versions"),
        ("cpus = 1\ncpus =", 2, None, "Invalid value (at"),
    ],
)
def test_what_cannot_be_is_told_with_its_place(
    text: str, code: int, line: int | None, said: str, project: Path, wherry: Wherry
) -> None:
    file = write(project, text)
    told = wherry("up", "-f", file)
    assert told.code == code and told.err.startswith(f"wherry: {file}{f', line {line}' if line else ''}: "), told
    assert said in told.err
    assert not store.machines()  # nothing was begun


def test_another_wherry_is_wanted_before_its_keys_are_read(project: Path, wherry: Wherry) -> None:
    told = wherry("up", "-f", write(project, "requires = '>=99'\nkey-of-2099 = true"))
    assert told.code == 4
    assert f"wants wherry >=99; this is wherry {__version__}." in told.err
    assert "git" in told.err  # the tests run in a checkout


@pytest.mark.parametrize("words", ["--cpus 1", "--memory 1G", "--share .", "--no-home", "--publish-address ::1", "--cold"])
def test_an_option_beside_the_file_is_a_mistake(words: str, project: Path, wherry: Wherry) -> None:
    told = wherry("up", "-f", write(project, "cpus = 1"), *words.split())
    assert told.code == 2 and f"{words.split()[0]} and -f are two answers" in told.err


def test_a_file_that_is_not_there(wherry: Wherry) -> None:
    assert wherry("up", "-f", "gone.toml").code == 2


# From an address.


def test_an_address_needs_its_hash(wherry: Wherry) -> None:
    told = wherry("up", "-f", "https://example.com/wherry.toml")
    assert told.code == 2 and "an address needs the SHA-256 of the wherry.toml" in told.err


def test_what_comes_is_what_the_hash_says_and_is_kept(home: Path) -> None:
    good, bad = b"cpus = 1\n", b"cpus = 2\n"
    digest = hashlib.sha256(good).hexdigest()
    paths = {"/a": well(good), "/b": well(bad), "/long": well(b"#" * (1 << 21))}
    with closing(IsoServer(paths=paths)) as server:
        address = server.url(f"/a#sha256={digest}")
        assert onboarding.read(address).settings == {"cpus": 1}
        for path, why in (("/b", "has another file"), ("/long", "sends more than"), ("/gone", "answered 404")):
            with pytest.raises(WherryError, match=why):
                onboarding.read(server.url(f"{path}#sha256={'0' * 64}"))
    assert onboarding.read(address).settings == {"cpus": 1}  # nobody listens any more
    (store.cache_dir() / "texts" / digest).write_bytes(bad)
    with pytest.raises(WherryError, match="refuses the connection"):
        onboarding.read(address)


@pytest.mark.parametrize("text", ["compose = 'compose.yaml'", "[shares]\nfolders = ['code']"])
def test_a_file_from_an_address_is_in_no_folder(text: str, home: Path) -> None:
    with closing(IsoServer(paths={"/w": well(text.encode())})) as server, pytest.raises(Usage, match="no whole path"):
        onboarding.read(server.url(f"/w#sha256={hashlib.sha256(text.encode()).hexdigest()}"))


# A machine that runs.


def test_the_second_time_nothing_is_done(keeper: FakeKeeper, project: Path, wherry: Wherry) -> None:
    keeper.missing = {"postgres:16"}
    file = write(
        project,
        """
        cpus = 1
        images = ["postgres:16", "redis:7"]
        compose = "compose.yaml"
        idle_suspend = 10
        [shares]
        folders = ["."]
        """,
    )
    said = wherry("up", "-f", file)
    assert said.code == 0 and said.out == "", said
    assert "idle_suspend: default -> 10\n" in said.err and f"shares.folders: default -> ['{project}']" in said.err.replace(
        '"', "'"
    )
    assert keeper.docker[0] == ["pull", "postgres:16"] and len(keeper.docker) == 2
    compose = next(request for request in keeper.requests if "compose" in request.get("argv", []))
    assert compose["argv"][-2:] == ["up", "--detach"] and compose["cwd"] == str(project)
    assert [request["verb"] for request in keeper.requests if request["verb"] in ("apply", "shares", "stop")][:2] == [
        "apply",
        "shares",
    ]
    assert config().idle_suspend == 10 and config().shares.folders == (str(project),)
    keeper.missing.clear()
    before, asked = store.machine("default").config_file.read_bytes(), len(keeper.docker)
    again = wherry("up", "-f", file, "--json")
    data = json.loads(again.out)["data"]
    assert again.code == 0 and again.err == ""
    assert (data["changed"], data["created"], data["restarted"], data["pulled"]) == ([], False, False, [])
    assert data["compose"] == str(project / "compose.yaml") and data["already"] is True
    assert store.machine("default").config_file.read_bytes() == before
    assert [words[-2:] for words in keeper.docker[asked:]] == [["up", "--detach"]]


def test_what_the_file_does_not_name_stays(keeper: FakeKeeper, project: Path, wherry: Wherry, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert wherry("share", "add", f"{other}:ro").code == 0
    assert wherry("config", "set", "engine.debug=true", "stop_seconds=7").code == 0
    assert wherry("up", "-f", write(project, "[shares]\nfolders = ['assets', '.:ro']")).code == 0
    assert config().shares.folders == (f"{other}:ro", f"{project}/assets", f"{project}:ro")
    assert config().stop_seconds == 7 and config().engine == {"debug": True}


def test_a_restart_is_asked_for(keeper: FakeKeeper, project: Path, wherry: Wherry, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(project, "stop_seconds = 9\nidle_suspend = 5\n[engine]\nlabels = ['a=b']")
    before = store.machine("default").config_file.read_bytes()
    said = wherry("up", "-f", file)
    assert said.code == 6 and 'engine.labels: default -> ["a=b"]\n' in said.err
    assert "there is nobody to ask; nothing is changed.\n" in said.err and f"wherry up -f '{file}' --yes\n" in said.err
    assert store.machine("default").config_file.read_bytes() == before
    done: list[str] = []
    monkeypatch.setattr(machine, "stop", lambda name, force, _report: done.append(f"stop {name} {force}"))
    monkeypatch.setattr(
        machine, "restart", lambda name, *_: done.append(f"restart {name}") or up(name, machine.UpOptions(), _[1])
    )
    up = machine.up
    # The keeper of this test goes on: as if somebody had started the machine again before it was changed.
    assert wherry("up", "-f", file, "--yes").code == 0
    assert done == ["stop default False", "restart default"]
    assert config().stop_seconds == 9 and config().engine == {"labels": ["a=b"]}


@pytest.mark.parametrize("answer", ["n", "y"])
def test_the_question_on_a_terminal(answer: str, keeper: FakeKeeper, project: Path) -> None:
    file = write(project, "stop_seconds = 9")
    ours, theirs = pty.openpty()
    words = [str(Path(sys.executable).with_name("wherry")), "up", "-f", file]
    with subprocess.Popen(words, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE) as process:
        try:
            os.close(theirs)
            seen = b""
            while b"Restart it now? [y/N]: " not in seen:
                seen += os.read(ours, 4096)
            assert b"stop_seconds: default -> 9" in seen
            os.write(ours, answer.encode() + b"\n")
            if answer == "y":
                deadline = time.monotonic() + 60
                while not stops(keeper):  # its answer is that of a machine that stops, but this keeper goes on
                    assert time.monotonic() < deadline and process.poll() is None
            else:
                assert process.wait(60) == 6
        finally:
            process.kill()
            os.close(ours)
    assert config().stop_seconds == 30  # it is changed when the machine has stopped
    assert len(stops(keeper)) == (answer == "y")


def stops(keeper: FakeKeeper) -> list[dict[str, Any]]:
    return [request for request in keeper.requests if request["verb"] == "stop"]


def test_a_pull_that_fails_is_gone_on_with(keeper: FakeKeeper, project: Path, wherry: Wherry) -> None:
    keeper.missing = {"a", "b"}
    keeper.client = lambda request, _: (1 if request["argv"][-1] == "b" else 0, b"layers\n", b"no such image\n")
    file = write(project, "images = ['a', 'b']\ncompose = 'compose.yaml'")
    said = wherry("up", "-f", file)
    assert said.code == 1 and said.out == "" and "layers\n" in said.err
    assert "wherry docker pull b ended with exit code 1." in said.err and f"again: wherry up -f '{file}'" in said.err
    keeper.missing = {"b"}
    keeper.client = lambda *_: (0, b"", b"")
    asked = len(keeper.docker)
    assert wherry("up", "-f", file).code == 0
    assert keeper.docker[asked] == ["pull", "b"] and keeper.docker[-1][-2:] == ["up", "--detach"]


# A machine that does not run.


def test_a_machine_that_is_stopped_takes_no_question(
    home: Path, project: Path, wherry: Wherry, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_machine()

    def up(*_: object) -> None:
        assert config().stop_seconds == 9  # changed before it starts
        raise NoProgress("not on this computer")

    monkeypatch.setattr(machine, "up", up)
    said = wherry("up", "-f", write(project, "stop_seconds = 9"))
    assert said.code == 5 and "stop_seconds: default -> 9" in said.err


def test_a_new_machine_is_made_as_the_file_says(
    home: Path, project: Path, wherry: Wherry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[machine.UpOptions] = []

    def make(name: str, options: machine.UpOptions, _report: object) -> bool:
        made.append(options)
        make_machine(name)
        return True

    monkeypatch.setattr("launcher.machine.create.make", make)

    def up(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(machine, "up", up)
    text = "cpus = 1\nmemory = '1G'\nstop_seconds = 9\n[shares]\nhome = false\nfolders = ['assets']"
    said = wherry("up", "-f", write(project, text), "--disk", "5G")
    assert said.code == 130 and "wherry up -f " in said.err
    [options] = made
    assert (options.cpus, options.memory, options.disk, options.no_home) == (1, 1 << 30, 5 << 30, True)
    assert options.share == (f"{project}/assets",)
    assert config().stop_seconds == 9 and config().shares.home is False
