"""wherry's own verbs: whole answers, exit codes, the JSON envelope."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher import __version__, machine, store
from launcher.cli import registry
from launcher.config import Shares
from launcher.errors import (
    ConnectionLost,
    EngineFailed,
    Interrupted,
    IsoProblem,
    LaunchFailed,
    MissingOnHost,
    NoProgress,
    NotRunning,
    Refused,
    Usage,
    WherryError,
)
from tests.conftest import Said
from tests.fakes import FakeKeeper, make_iso, make_machine

Wherry = Callable[..., Said]


def envelope(said: Said) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(said.out)
    assert set(value) == {"ok", "data", "error"}
    return value


def failing(error: BaseException) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> None:
        raise error

    return call


def test_version(wherry: Wherry) -> None:
    assert wherry("--version") == Said(0, f"wherry {__version__}\n", "")
    assert wherry("--json", "--version").out == f"wherry {__version__}\n"
    assert wherry("version") == Said(0, f"wherry    {__version__}\nengine    (not running)\n", "")
    assert envelope(wherry("version", "--json"))["data"] == {
        "wherry": __version__, "engine": None, "iso": None, "release_iso": None, "warnings": [],
    }  # fmt: skip


def test_version_tells_the_age_of_the_iso(wherry: Wherry, keeper: FakeKeeper) -> None:
    packages = [{"name": "runc", "version": "1.0-1"}, {"name": "docker.io", "version": "99"}]
    make_iso(built="2001-01-01T00:00:00Z", packages=packages)
    said = wherry("version")
    assert said.out.splitlines()[2].startswith("iso       0.1.0 amd64 aaaaaaaaaaaa · 2001-01-01 · 9")
    assert said.out.endswith(" days old\n")
    assert "wherry: the ISO is 9" in said.err and "in the ISO, runc 1.0-1 is older than 1.3.3" in said.err
    assert "docker.io" not in said.err and "containerd: its version is not known" in said.err
    data = envelope(wherry("version", "--json"))["data"]
    assert data["release_iso"] is None
    recent = make_iso("b" * 64, built="2001-06-01T00:00:00Z")
    (recent / "origin.json").write_text('{"origin": "file", "imported": 1}')
    assert wherry("version").out.splitlines()[3].startswith("release   0.1.0 amd64 bbbbbbbbbbbb · 2001-06-01 · 9")
    assert wherry("version").out.endswith("   wherry upgrade\n")
    assert wherry("version", "none").out.splitlines()[2].startswith("release ")
    assert data["iso"]["old"] is True and data["iso"]["sha256"] == "a" * 64 and len(data["warnings"]) == 5


def test_no_machine_yet(wherry: Wherry) -> None:
    assert wherry("list") == Said(0, "", "There is no machine yet.   wherry up\n")
    assert envelope(wherry("list", "--json"))["data"] == []
    assert wherry("list", "-q") == Said(0, "", "")
    assert wherry("status") == Said(3, "", "wherry: there is no machine 'default'.\n        wherry up\n")
    assert wherry("status", "arm").err == "wherry: there is no machine 'arm'.\n        wherry up arm\n"
    for words in ("stop", "restart", "delete --yes", "ip", "logs", "logs engine", "ssh true", "cp x:/a b"):
        assert wherry(*words.split()).code == (255 if words.startswith("ssh") else 3), words


def test_a_machine_that_runs(wherry: Wherry, keeper: FakeKeeper) -> None:
    said = wherry("status")
    assert said.code == 0 and said.err == ""
    assert said.out.splitlines()[0] == "default   running 3 h 12 min     Docker 28.5.2 · kvm"
    assert said.out.splitlines()[1] == "has       amd64 · 1 CPU · 1 GB memory"
    data = envelope(wherry("status", "default", "--json"))["data"]
    assert (data["name"], data["status"], data["engine"]) == ("default", "running", "28.5.2")
    assert wherry("ip") == Said(0, "127.0.0.1\n", "")
    started = wherry("up").err.splitlines()
    assert started[0] == "default is running · Docker 28.5.2 · kvm"
    assert started[1].startswith("  shares    /") and started[2].startswith("  docker context wherry is now current")
    assert wherry("up") == Said(0, "", "\n".join(started[:2]) + "\n")
    assert wherry("start", "-q") == Said(0, "", "")
    assert wherry("list", "-q") == Said(0, "default\n", "")
    assert wherry("list").out.splitlines()[0] == "NAME      STATUS    ARCH    CPUS   MEMORY   DISK USED   ENGINE"
    assert wherry("delete", "--yes").code == 6


def test_a_machine_that_is_stopped(wherry: Wherry, home: Path) -> None:
    make_machine("arm")
    assert wherry("status", "arm").code == 3
    assert wherry("--machine", "arm", "status").code == 3
    assert wherry("stop", "arm") == Said(0, "", "arm was not running.\n")
    assert (
        wherry("down", "arm", "--json").out
        == '{\n "ok": true,\n "data": {\n  "name": "arm",\n  "was_running": false\n },\n "error": null\n}\n'
    )
    assert wherry("status", "arm", "--timeline").out == "No start is known yet.\n"
    assert wherry("logs", "keeper", "arm").code == 1
    assert wherry("init", "arm").code == 6


def test_a_damaged_machine_is_listed(wherry: Wherry, home: Path) -> None:
    make_machine("good")
    (make_machine("bad").path / "machine.toml").write_text("cpus = nonsense")
    said = wherry("list")
    assert said.code == 0
    assert [line.split()[:2] for line in said.out.splitlines()[1:]] == [["bad", "broken"], ["good", "stopped"]]
    assert "bad: " in said.err
    assert wherry("status", "bad").code == 1


def test_delete_asks_and_names_what_goes(wherry: Wherry, home: Path) -> None:
    directory = make_machine("old")
    said = wherry("delete", "old")
    assert (
        said.code == 6
        and "nobody to ask" in said.err
        and str(directory.path) in said.err
        and "wherry delete --yes old" in said.err
    )
    assert directory.exists()
    assert wherry("destroy", "old", "--yes") == Said(0, "", "old is deleted.\n")
    assert not directory.exists()


def test_logs(wherry: Wherry, home: Path) -> None:
    make_machine().serial_log.write_bytes(b"one\r\ntwo\xff\r\nthree\r\n")
    assert wherry("logs").out.startswith("one\ntwo")
    assert wherry("logs", "serial", "-n", "1").out == "three\n"
    assert envelope(wherry("logs", "--json", "-n2"))["data"]["lines"] == ["two\ufffd", "three"]
    assert wherry("logs", "docker").code == 2


def test_logs_of_the_engine_come_from_the_machine(wherry: Wherry, keeper: FakeKeeper) -> None:
    assert wherry("logs", "engine", "--tail", "5").code != 0  # there is no such file on this computer
    assert keeper.requests[-1]["argv"] == ["tail", "-n", "5", "/var/lib/wherry/log/engine.log"]


def test_the_list_of_ports_shows_the_containers_own(wherry: Wherry, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"container": "web", "protocol": "tcp", "address": "::1", "port": 8080, "guest_port": 65001, "state": "ok"}
    older = {**entry, "container": "", "address": "127.0.0.1", "guest_port": 5432}  # of a keeper that does not tell it
    monkeypatch.setattr("launcher.machine.ports.listing", lambda _name: [{**entry, "inside": 80}, older])
    rows = [line.split() for line in wherry("port", "list").out.splitlines()]
    assert rows[1] == ["web", "tcp", "[::1]:8080", "80", "ok"]
    assert rows[2][-3:] == ["127.0.0.1:8080", "5432", "ok"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WherryError("it"), 1), (LaunchFailed("it"), 1), (EngineFailed("it"), 1), (ConnectionLost("it"), 1), (Usage("it"), 2),
        (NotRunning("it"), 3), (MissingOnHost("it"), 4), (NoProgress("it"), 5), (Refused("it"), 6), (IsoProblem("it"), 7),
        (Interrupted("it"), 130), (OSError("it"), 1),
    ],
)  # fmt: skip
def test_exit_codes(error: Exception, code: int, wherry: Wherry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "up", failing(error))
    assert wherry("up") == Said(code, "", "wherry: it\n")
    shown = envelope(wherry("up", "--json"))
    assert shown["ok"] is False and shown["data"] is None and shown["error"]["message"] == "it"
    assert "Traceback" in wherry("up", "--debug").err


def test_errors_have_a_cause_and_a_next_step(wherry: Wherry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "up", failing(LaunchFailed("QEMU ended.", hint="wherry logs qemu", detail="line 1\nline 2")))
    assert wherry("up").err == "wherry: QEMU ended.\n        | line 1\n        | line 2\n        wherry logs qemu\n"


def test_a_mistake_of_ours_is_no_traceback(wherry: Wherry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "up", failing(KeyError("x")))
    said = wherry("up")
    assert said.code == 1 and said.err.startswith("wherry: KeyError: 'x'\n") and "Traceback" not in said.err


def test_ctrl_c_in_up(wherry: Wherry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "up", failing(KeyboardInterrupt()))
    said = wherry("up", "arm")
    assert said == Said(130, "", "wherry: interrupted before there was a machine.\n        wherry up arm\n")
    make_machine("arm")
    said = wherry("up", "arm")
    assert said == Said(
        130, "", "wherry: arm is still starting in the background.\n        wherry up arm watches, wherry stop arm ends it\n"
    )


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("ps -a", "'ps' is docker's word.", "wherry docker ps -a"),
        ("images", "'images' is docker's word.", "wherry docker images"),
        ("exec -it web sh -c 'a b'", "'exec' is docker's word.", "wherry docker exec -it web sh -c 'a b'"),
        ("docker-compose up", "'docker-compose' is called compose here.", "wherry compose up"),
        ("stat", "there is no verb 'stat'.", "wherry status ?"),
        ("sta", "there is no verb 'sta'.", "wherry status ?"),
        ("stauts", "there is no verb 'stauts'.", "wherry status ?"),
        ("xyzzy", "there is no verb 'xyzzy'.", "wherry --help"),
        ("up --memory 8", "'8' is not a size (write 8G).", None),
        ("up --arch riscv", None, "wherry up --help"),
        ("up --cpus 0", None, "wherry up --help"),
        ("up NOT/A/NAME", None, None),
        ("--machine a status b", "two machines are named: a and b.", None),
        ("--frob", None, "wherry --help"),
        ("cp a b", "one side of cp is in a machine, the other one here.", "wherry cp FILE default:/root/"),
    ],
)
def test_usage(words: str, message: str | None, hint: str | None, wherry: Wherry) -> None:
    import shlex

    said = wherry(*shlex.split(words))
    assert said.code == 2 and said.out == ""
    error = envelope(wherry("--json", *shlex.split(words)))["error"]
    assert error["kind"] == "usage" and error["exit_code"] == 2
    assert message is None or error["message"] == message
    assert error["hint"] == hint or (message is None and hint is None)


@pytest.mark.parametrize("alias", registry.ALIASES)
def test_other_words_for_verbs(alias: str, wherry: Wherry) -> None:
    verb = registry.ALIASES[alias][0]
    assert wherry(alias, "--help").out.startswith(f"Usage: wherry {verb} ")


def test_the_machine_is_named_in_four_ways(wherry: Wherry, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_machine("arm")
    monkeypatch.setenv("WHERRY_MACHINE", "arm")
    assert wherry("status").out.startswith("arm ")
    monkeypatch.setenv("WHERRY_MACHINE", "other")
    for words in ("status arm", "--machine arm status", "--machine=arm status", "status --machine arm"):
        assert wherry(*words.split()).out.startswith("arm ")


def test_every_verb_has_help(wherry: Wherry) -> None:
    for verb in registry.VERBS:
        said = wherry("help", verb)
        assert said.code == 0 and said.out.startswith(f"Usage: wherry {verb}")
    assert wherry("help").out == wherry("--help").out == wherry().out
    assert wherry("help", "halt").out == wherry("help", "stop").out
    assert wherry("help", "ps").code == 2


def test_the_words_of_a_verb_have_help(wherry: Wherry) -> None:
    assert wherry("help", "share", "add").out == wherry("share", "add", "--help").out != ""
    assert wherry("help", "run", "alpine").out == wherry("help", "run").out
    said = wherry("help", "share", "ad")
    assert (said.code, "share knows no 'ad'" in said.err, "wherry share add" in said.err) == (2, True, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_code(shell: str, wherry: Wherry) -> None:
    said = wherry("completion", shell)
    assert said.code == 0 and "_WHERRY_COMPLETE" in said.out and f"{shell}_complete" in said.out


def completed(shell: str, words: str, at: str, home: Path) -> str:
    environment = {**os.environ, "_WHERRY_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": at}
    done = subprocess.run([sys.executable, "-m", "launcher"], env=environment, capture_output=True, check=False, text=True)
    assert done.stderr == ""
    return done.stdout


def test_completion_answers(home: Path) -> None:
    assert completed("bash", "wherry st", "1", home).split() == ["plain,stop", "plain,status"]
    assert "--timeline" in completed("powershell", "wherry\nstatus\n--t", "--t", home)
    assert completed("powershell", "wherry\nde", "de", home).startswith("delete\tDelete a machine")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
@pytest.mark.parametrize("before", ["status", "--machine", "up --machine", "delete", "logs serial", "doctor", "config show"])
def test_machines_are_completed(shell: str, before: str, home: Path) -> None:
    for name in ("default", "arm", "armada"):
        make_machine(name)
    words = ["wherry", *before.split(), "ar"]
    joined = "\n".join(words) if shell == "powershell" else " ".join(words)
    at = str(len(words) - 1) if shell in ("bash", "zsh") else "ar"
    offered = set(re.findall(r"[a-z]+", completed(shell, joined, at, home)))
    assert {"arm", "armada"} <= offered and "default" not in offered


def test_shares_that_can_be_taken_back_are_completed(home: Path) -> None:
    directory = make_machine()
    directory.write_config(directory.read_config().changed(shares=Shares(folders=("/srv/code:ro", "/opt/data"))))
    assert completed("bash", "wherry share remove /s", "3", home).split() == ["plain,/srv/code"]
    assert completed("bash", "wherry --machine none share remove /s", "5", home).split() == []


def test_keys_are_completed(home: Path) -> None:
    assert completed("bash", "wherry config set net", "3", home).split() == [
        "plain,network.proxy", "plain,network.ca", "plain,network.subnet",
    ]  # fmt: skip


def test_an_empty_log_says_so(wherry: Wherry, home: Path) -> None:
    log = make_machine().serial_log
    log.touch()
    assert wherry("logs") == Said(0, "", f"{log} is empty.\n")
    assert wherry("logs", "-q") == Said(0, "", "")
    assert wherry("logs", "-n", "0").err == ""
    log.unlink()
    assert "never started" in wherry("logs").err


def test_help_has_a_short_form(wherry: Wherry) -> None:
    for words in ("-h", "up -h", "config -h", "config set -h", "doctor -h", "ssh -h"):
        said = wherry(*words.split())
        assert said.code == 0 and said.out.startswith("Usage: wherry"), words


# What must not be loaded before a proxied command is on its way: each costs tens of milliseconds.
HEAVY = {"click", "paramiko", "requests", "pycdlib", "psutil", "tqdm", "tomlkit", "logging", "subprocess", "tarfile"}


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["--version"], HEAVY | {"re", "json", "dataclasses"}),
        (["docker", "ps"], HEAVY),
        (["run", "alpine"], HEAVY),
        (["ssh", "true"], HEAVY),
        (["compose", "ls"], HEAVY - {"tarfile"}),
        (["status"], {"paramiko", "requests", "pycdlib", "tomlkit"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_not_imported(words: list[str], heavy: set[str], keeper: FakeKeeper) -> None:
    code = (
        "import sys\nfrom launcher.__main__ import main\n"
        f"code = main({words!r})\nloaded = {sorted(heavy)!r}\n"
        "print([name for name in loaded if name in sys.modules])\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("published", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.168.1.5,::1", "192.168.1.5")])
def test_ip_is_an_address_that_one_can_connect_to(wherry: Wherry, keeper: FakeKeeper, published: str, shown: str) -> None:
    directory = store.machine("default")
    directory.write_config(directory.read_config().changed(publish_address=published))
    assert wherry("ip") == Said(0, f"{shown}\n", "")
