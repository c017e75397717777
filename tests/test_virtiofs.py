"""Which shares go over virtiofs, by what, and what is refused; with this computer's virtiofsd where there is one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from launcher import host, store, virtiofs
from launcher.config import GIB, MachineConfig, Shares
from launcher.errors import MissingOnHost, Refused, WherryError
from launcher.host import macos
from launcher.keeper import virtiofsd
from launcher.keeper.virtiofsd import Plan, Virtiofsds
from launcher.qemu import command
from launcher.sftp import ownerfile
from launcher.sftp.ownerfile import OwnerFile, Row
from launcher.sharing import shares_of
from launcher.state import State
from launcher.store import MachineDir
from launcher.virtiofs import Program
from tests.conftest import Said
from tests.fakes import make_machine
from tests.test_qemu_command import BOOT

RUST = Program(Path("/usr/libexec/virtiofsd"), is_qemus=False, read_only=True, squashes=True)
QEMUS = Program(Path("/usr/lib/qemu/virtiofsd"), is_qemus=True, read_only=False, squashes=False)
linux = pytest.mark.skipif(sys.platform != "linux", reason="virtiofsd is Linux's")


def config(*folders: str, home: bool = True, hidden: tuple[str, ...] = (), on: bool = True) -> MachineConfig:
    return MachineConfig("amd64", 2, GIB, "0" * 64, shares=Shares(home, folders, hidden, virtiofs=on))


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, with folders beside it."""
    home = (tmp_path / "ana").resolve()
    home.mkdir()
    for name in ("data", "a,b"):
        (home.parent / name).mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WHERRY_HOME", str(tmp_path / "wherry"))
    return home


def program(folder: Path, text: str) -> Path:
    made = folder / "virtiofsd"
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(0o755)
    return made


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all where a virtiofsd is sought, beside what a shell needs."""
    (made := tmp_path / "programs").mkdir()
    monkeypatch.setenv("PATH", f"{made}:/usr/bin:/bin")
    monkeypatch.setattr(host.current(), "virtiofsd_folders", lambda: [made])
    return made


def why(wanted: MachineConfig, chosen: Program | None = RUST) -> dict[str, str]:
    return {share.path: reason for share, reason in virtiofs.judged(wanted, chosen)}


@linux
def test_a_share_with_places_of_its_own_stays_with_us(user: Path) -> None:
    data = str(user.parent / "data")
    assert why(config(data)) == {str(user): "it holds private places", data: ""}
    # One that is not there yet counts, and a folder on the way to one; what the user has taken out of the list does not.
    assert why(config(data, hidden=(f"{data}/later/secret",)))[data] == "it holds private places"
    assert why(config("~/code", "~/.config", home=False)) == {
        f"{user}/code": "it is not there", f"{user}/.config": "it is not there",
    }  # fmt: skip
    (user / "code").mkdir()
    (user / ".config").mkdir()
    assert why(config("~/code", "~/.config", home=False)) == {
        f"{user}/code": "", f"{user}/.config": "it holds private places",
    }  # fmt: skip
    # So does one that a private place is a link into, one from which this computer runs code, and one that is around another.
    (user / ".aws").symlink_to(data)
    assert why(config(data))[data] == ""  # the whole of it, given by name
    (user / ".aws").unlink()
    (user / ".aws").symlink_to(f"{data}/keys")
    (user.parent / "data" / "keys").mkdir()
    assert why(config(data))[data] == "it holds private places"
    (user / ".local").mkdir()
    assert why(config("~/.local", home=False)) == {f"{user}/.local": "it holds private places"}
    assert why(config("~/code", "~/code/x:ro", home=False)) == {f"{user}/code": "another share lies in it"}


@linux
def test_a_virtiofsd_that_cannot_is_given_none(user: Path) -> None:
    data, comma = str(user.parent / "data"), str(user.parent / "a,b")
    wanted = config(f"{data}:ro", comma)
    assert [share.path for share in virtiofs.chosen(wanted, RUST)] == [data, comma]
    assert virtiofs.chosen(wanted, QEMUS) == []
    assert why(wanted, QEMUS)[data] == "this virtiofsd cannot keep it read-only"


def test_the_words_of_both() -> None:
    assert QEMUS.argv("/srv/x", read_only=False, fd=7) == [
        "/usr/lib/qemu/virtiofsd", "--fd=7", "-o", "source=/srv/x", "-o", "modcaps=-mknod", "-o", "log_level=warn",
    ]  # fmt: skip
    everybody = f"squash-guest:0:{os.geteuid()}:4294967295", f"squash-guest:0:{os.getegid()}:4294967295"
    words = [
        "/usr/libexec/virtiofsd", "--fd=7", "--shared-dir=/srv/a,b", "--sandbox=namespace", "--modcaps=-mknod",
        "--log-level=warn",
        f"--translate-uid={everybody[0]}", f"--translate-gid={everybody[1]}",
    ]  # fmt: skip
    assert RUST.argv("/srv/a,b", read_only=False, fd=7) == words
    assert RUST.argv("/srv/a,b", read_only=True, fd=7) == [*words, "--readonly"]
    assert RUST._replace(squashes=False).argv("/x", read_only=False, fd=7)[-1] == "--log-level=warn"


@linux
def test_the_programs_are_told_apart(alone: Path) -> None:
    with pytest.raises(MissingOnHost) as none:
        virtiofs.find()
    assert "no virtiofsd on this computer" in none.value.message and "config set shares.virtiofs false" in str(none.value.hint)
    made = program(alone, 'echo "  -o source=PATH  shared directory tree"')
    assert virtiofs.find() == (made, True, False, False)
    program(alone, 'echo "--shared-dir <D>\n--readonly\n- squash-guest: n:1"')
    assert virtiofs.find() == (made, False, True, True)
    program(alone, 'echo "--shared-dir <D>"')
    assert virtiofs.find() == (made, False, False, False)
    program(alone, "echo something else")
    with pytest.raises(MissingOnHost, match="no virtiofsd that wherry knows"):
        virtiofs.find()


def test_it_is_linuxs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "current", lambda: SimpleNamespace(**vars(macos)))
    with pytest.raises(MissingOnHost, match="for Linux"):
        virtiofs.find()


@linux
@pytest.mark.parametrize("ends", ["echo no right >&2; exit 1", "exec sleep 1000 3>&-"])
def test_one_that_does_not_work_is_refused_with_its_words(alone: Path, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    monkeypatch.setattr(virtiofs, "_ANSWER_SECONDS", 1.0)
    program(alone, f'case $1 in --help) echo "--shared-dir --readonly" ;; *) {ends} ;; esac')
    with pytest.raises(Refused) as refused:
        virtiofs.check()
    assert "does not work here" in refused.value.message
    assert "exit" not in ends or refused.value.detail == "no right"


@linux
def test_config_set_refuses_what_cannot_be(wherry: Any, home: Path, alone: Path) -> None:
    make_machine()
    said: Said = wherry("config", "set", "shares.virtiofs=true")
    assert said.code != 0 and "there is no virtiofsd on this computer" in said.err
    assert "Install the package virtiofsd" in said.err
    assert "virtiofs" not in store.machine("default").config_file.read_text()


@linux
def test_a_stopped_machine_tells_what_its_next_start_does(
    wherry: Callable[..., Said], home: Path, alone: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_machine()
    beside = str(user.parent / "data")
    directory.write_config(config(beside))

    def told() -> list[tuple[bool, str]]:
        found = json.loads(wherry("share", "list", "--json").out)["data"]
        return [(share["virtiofs"], share["why"]) for share in found]

    missing = (False, f"shares.virtiofs is set, and there is no virtiofsd on this computer (sought in PATH, {alone})")
    assert told() == [missing, missing]
    assert "failure   virtiofs" in (said := wherry("doctor").out) and "Install the package virtiofsd" in said
    program(alone, "echo --shared-dir")
    assert told() == [(False, "it holds private places"), (True, "")]
    assert f"shares    {user} (read-write)" in (said := wherry("status").out) and f"{beside} (read-write, virtiofs)" in said
    directory.write_config(config(beside, on=False))
    assert told() == [(False, ""), (False, "")] and "virtiofs" not in wherry("doctor").out


@linux
def test_what_a_running_machine_has_cannot_change(user: Path, tmp_path: Path) -> None:
    data = str(user.parent / "data")
    directory = MachineDir("m", tmp_path / "m")
    directory.path.mkdir()
    now = config(data, home=False)
    served = shares_of(now)[0].id
    directory.write_state(State(status="running", virtiofs={served: [1, "x"]}))
    same = (
        now,
        config(data, data + ":rw", home=False),
        config(data, str(user.parent / "a,b")),
        config(data, on=False, home=False),
    )
    for after in same:
        virtiofs.check_change(directory, now, after)
    others = (
        config(home=False),
        config(f"{data}:ro", home=False),
        config(data, f"{data}/x:ro"),
        config(data, hidden=(f"{data}/x",)),
    )
    for after in others:
        with pytest.raises(Refused, match="over virtiofs"):
            virtiofs.check_change(directory, now, after)
    directory.write_state(State(status="running"))
    for after in others:
        virtiofs.check_change(directory, now, after)


def test_a_machine_with_it_cannot_be_suspended() -> None:
    assert not virtiofs.suspend_hindered_by(State())
    assert "virtiofs" in virtiofs.suspend_hindered_by(State(virtiofs={"data": [1, "x"]}))


class Keeper:
    """As much of one as its virtiofsds need."""

    def __init__(self, folder: Path, wanted: MachineConfig) -> None:
        self.directory = MachineDir("default", folder)
        self.directory.run_dir.mkdir(parents=True)
        self.config = wanted
        self.state = State(status="starting")
        self.notes: list[str] = []

    def update(self, **values: Any) -> None:
        self.state = replace(self.state, **values)
        self.directory.write_state(self.state)

    def note(self, text: str, *, warning: bool = False) -> None:
        self.notes.append(text)


@pytest.fixture
def keeper(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    (run := Path(tmp_path / "r")).mkdir()
    monkeypatch.setattr(host.current(), "run_base", lambda: run)
    (folder := tmp_path / "machine").mkdir()
    made = Keeper(folder, config(str(user.parent / "data")))
    try:
        yield made
    finally:
        virtiofsd.end_all(made.state.virtiofs)


@linux
def test_nothing_is_asked_of_a_machine_that_does_not_want_it(keeper: Keeper, alone: Path) -> None:
    keeper.config = config(on=False)
    made = Virtiofsds(keeper)
    assert made.plan() == Plan() and made.start(made.plan()) == ()
    made.end()
    assert not keeper.directory.state_file.exists()


@linux
def test_none_of_it_for_the_home_alone_is_said(keeper: Keeper, alone: Path) -> None:
    program(alone, "echo --shared-dir")
    keeper.config = config()
    assert Virtiofsds(keeper).plan().shares == () and "no share can go over virtiofs" in keeper.notes[0]


@linux
def test_remembered_owners_that_are_not_shown_meanwhile_are_told(
    keeper: Keeper, user: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(alone, "echo --shared-dir")
    monkeypatch.setattr(virtiofs, "try_out", lambda program, folder, *, read_only: None)
    (share,) = Virtiofsds(keeper).plan().shares
    assert keeper.notes == []
    (folder := keeper.directory.owners_dir).mkdir()
    (folder / f"{share.id}.sqlite3").write_text("no file of ours")
    assert Virtiofsds(keeper).plan().shares == (share,) and keeper.notes == []
    (folder / f"{share.id}.sqlite3").unlink()
    with contextlib.closing(OwnerFile(folder / f"{share.id}.sqlite3")) as file:
        assert Virtiofsds(keeper).plan().shares == (share,)
        assert [note for note in keeper.notes if "remembered" in note], "whoever has it open may be about to write"
        keeper.notes.clear()
    assert Virtiofsds(keeper).plan().shares == (share,) and keeper.notes == []
    with contextlib.closing(OwnerFile(folder / f"{share.id}.sqlite3")) as file:
        file.put(Row(0, 7, 0, 999, 999, None))
    assert Virtiofsds(keeper).plan().shares == (share,)
    assert keeper.notes == [
        f"{share.path} goes over virtiofs: owners and modes remembered for files in it are not shown meanwhile"
    ]
    # They are still there for the day that it is ours again.
    assert ownerfile.remembers(folder / f"{share.id}.sqlite3")


def real() -> Program:
    try:
        virtiofs.check()
        return virtiofs.find()
    except WherryError as error:
        pytest.skip(error.message)


@linux
def test_they_are_known_at_once_and_end_with_their_machine(keeper: Keeper, user: Path) -> None:
    found = real()
    made = Virtiofsds(keeper)
    plan = made.plan()
    assert plan.program == found and [share.path for share in plan.shares] == [str(user.parent / "data")]
    (server,) = made.start(plan)
    ((name, (pid, stamp)),) = keeper.directory.read_state().virtiofs.items()
    assert server.tag == name == plan.shares[0].id and virtiofsd.lives(pid, stamp)
    mode = os.stat(server.socket).st_mode
    assert stat.S_ISSOCK(mode) and Path(server.socket).parent == keeper.directory.run_dir
    assert os.getsid(pid) != os.getsid(0), "it outlives the keeper's terminal"
    made.end()
    assert not virtiofsd.lives(pid, stamp) and keeper.state.virtiofs == {} and not Path(server.socket).exists()


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64 here")
def test_a_real_qemu_meets_them_misses_none_and_takes_them_along(keeper: Keeper, user: Path) -> None:
    real()
    keeper.config = config(str(user.parent / "data"), str(user.parent / "b"))
    (user.parent / "b").mkdir()
    made = Virtiofsds(keeper)
    servers = made.start(made.plan())
    boot = replace(BOOT, accel="tcg", memory=256 << 20, file_servers=servers)
    argv = [*command.machine_args(boot), *command.file_server_args(boot), *command.sandbox_args(boot)]
    qemu = subprocess.Popen(
        ["qemu-system-x86_64", "-S", "-nodefaults", "-display", "none", *argv, "-qmp", "stdio"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert qemu.stdin is not None and qemu.stdout is not None

    def ask(execute: str, **arguments: Any) -> dict[str, Any]:
        assert qemu.stdin is not None and qemu.stdout is not None
        qemu.stdin.write(json.dumps({"execute": execute, "arguments": arguments}).encode() + b"\n")
        qemu.stdin.flush()
        while True:
            answer: dict[str, Any] = json.loads(qemu.stdout.readline())
            if "return" in answer or "error" in answer:
                return answer

    try:
        assert b"QMP" in qemu.stdout.readline()
        ask("qmp_capabilities")
        (first, stamp), second = keeper.state.virtiofs.values()
        os.kill(first, signal.SIGKILL)
        until_gone(first, stamp)
        assert ask("query-status")["return"]["status"] == "prelaunch"
        assert virtiofsd.lives(*second)
        ask("quit")
        qemu.wait(60)
        until_gone(*second)
    finally:
        qemu.kill()
        qemu.communicate()
        made.end()


def until_gone(pid: int, stamp: str) -> None:
    deadline = time.monotonic() + 60
    while virtiofsd.lives(pid, stamp):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@linux
def test_one_that_a_dead_keeper_left_is_ended_by_the_next(keeper: Keeper) -> None:
    real()
    made = Virtiofsds(keeper)
    made.start(made.plan())
    ((pid, stamp),) = keeper.state.virtiofs.values()
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    virtiofsd.end_left(keeper.directory)
    psutil.wait_procs(family, 30)
    assert not virtiofsd.lives(pid, stamp) and not [one for one in family if one.is_running() and one.status() != "zombie"]
    made.end()
    # Whoever has its pid then is left alone.
    virtiofsd.end_all({"data": [os.getpid(), "another"]})


@linux
def test_it_serves_a_folder_and_is_greeted(tmp_path: Path) -> None:
    found = real()
    virtiofs.try_out(found, str(tmp_path), read_only=found.read_only)
    with pytest.raises(Refused):
        virtiofs.try_out(found, str(tmp_path / "missing"), read_only=False)


def test_a_lost_state_is_read_from_the_command() -> None:
    argv = [
        "-chardev",
        "socket,id=fs0,path=/x",
        "-device",
        "vhost-user-fs-pci,chardev=fs0,tag=data-1",
        "-device",
        "virtio-rng-pci",
    ]
    assert virtiofsd.of_command(argv) == {"data-1": [0, ""]} and virtiofsd.lives(0, "")
