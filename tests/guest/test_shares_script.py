"""The guest's `shares` and its service, with a stand-in for the file system: who is started, ended, started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .helpers import SCRIPTS

SHARE = """#!/usr/bin/env python3
import os, signal, socket, sys
run = os.environ["WHERRY_RUN"]
with open(f"{run}/started", "a") as file:
    file.write("\\t".join(sys.argv[1:]) + "\\n")
if "bad" in sys.argv[3]:
    sys.exit("share: no such thing")
listening = socket.socket(socket.AF_UNIX)
listening.bind(f"{run}/shares/{sys.argv[1]}")
listening.listen()
signal.pause()
"""
UMOUNT = '#!/bin/sh\nprintf "%s\\n" "$*" >>"$WHERRY_RUN/unmounted"\nexit 1\n'
NOTHING = "#!/bin/sh\n"
MOUNT = """#!/bin/sh
for place; do :; done
case $*:$place in
    *virtiofs*:*bad*) echo "mount: no such device" >&2; exit 255 ;;
esac
printf '%s\\n' "$*" >>"$WHERRY_RUN/mounts"
"""
PATIENCE = 60.0

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists() or shutil.which("sh") is None, reason="needs Linux and a shell")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Machine:
    """A folder that stands for /run/wherry."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.service: subprocess.Popen[bytes] | None = None
        for name, text in (("bin/share", SHARE), ("bin/umount", UMOUNT), ("bin/mount", MOUNT), ("bin/modprobe", NOTHING)):
            program = folder / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(text)
            program.chmod(0o755)
        (folder / "seed").mkdir()
        (folder / "seed" / "env").write_text("")
        (folder / "console").write_text("")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "WHERRY_RUN": str(self.folder), "WHERRY_LIB": str(SCRIPTS),
            "WHERRY_SHARE": str(self.folder / "bin" / "share"), "WHERRY_CONSOLE": str(self.folder / "console"),
        }  # fmt: skip

    def serve(self, seed: str = "") -> None:
        (self.folder / "seed" / "shares").write_text(seed)
        self.service = subprocess.Popen([SCRIPTS / "services" / "shares"], env=self.environment)
        until((self.folder / "share" / "ready").exists)

    def end_service(self) -> None:
        if self.service is not None:
            self.service.kill()
            self.service.wait()
            self.service = None

    def shares(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([SCRIPTS / "shares", *arguments], env=self.environment, capture_output=True, text=True)

    def read(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def process(self, share: str) -> int:
        """Its number, which is written a moment after the process has begun."""
        file, found = self.folder / "share" / "pids" / share, ""

        def written() -> bool:
            nonlocal found
            found = file.read_text() if file.exists() else ""
            return found.endswith("\n")

        until(written)
        return int(found)

    def mounted(self) -> set[str]:
        return {path.name for path in (self.folder / "shares").iterdir()}

    def close(self) -> None:
        self.end_service()
        (self.folder / "stopping").mkdir()
        for kind in ("keepers", "pids"):
            for path in (self.folder / "share" / kind).glob("*"):
                try:
                    os.kill(int(path.read_text()), signal.SIGKILL)
                except (ProcessLookupError, ValueError):
                    continue


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_those_of_the_seed_are_mounted_before_the_service_is_ready(machine: Machine) -> None:
    machine.serve("home\trw\t/home/it's me\t/private/home/it's me\ndata-1\tro\t/srv/data")
    assert sorted(machine.read("started")) == ["data-1\tro\t/srv/data", "home\trw\t/home/it's me\t/private/home/it's me"]
    assert machine.mounted() == {"home", "data-1"}
    assert sorted(machine.shares("list").stdout.splitlines()) == sorted(machine.read("seed/shares"))


def test_a_path_is_no_pattern(machine: Machine, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    machine.serve(f"x\trw\t{tmp_path}/*\t{tmp_path}/?\n")
    assert machine.read("started") == [f"x\trw\t{tmp_path}/*\t{tmp_path}/?"]
    assert machine.shares("leave").returncode == 0
    assert machine.read("unmounted")[-2:] == [f"-l {tmp_path}/*", f"-l {tmp_path}/?"]
    assert machine.shares("list").stdout == f"x\trw\t{tmp_path}/*\t{tmp_path}/?\n"


def test_one_that_cannot_be_keeps_nothing_back_and_is_said(machine: Machine) -> None:
    machine.serve("home\trw\t/home/me\na\trw\t/bad\nb\trw\t/usr/lib\nc\twx\t/srv\n")
    assert machine.mounted() == {"home"}
    notes = machine.read("console")
    assert "wherry-note share a: share: no such thing" in notes
    assert any("/usr/lib is the guest's own" in line for line in notes) and any(
        "no mode of a share: wx" in line for line in notes
    )


def test_add_change_and_remove_while_it_runs(machine: Machine) -> None:
    machine.serve()
    assert machine.shares("add", "data", "rw", "/srv/a b", "/private/srv/a b").returncode == 0
    first = machine.process("data")
    assert machine.shares("add", "data", "rw", "/srv/a b", "/private/srv/a b").returncode == 0
    assert machine.process("data") == first, "nothing changed"
    assert machine.shares("add", "data", "ro", "/srv/a b").returncode == 0
    assert machine.read("started") == ["data\trw\t/srv/a b\t/private/srv/a b", "data\tro\t/srv/a b"]
    assert "-l /private/srv/a b" in machine.read("unmounted")
    until(lambda: machine.process("data") != first)
    second = machine.process("data")
    assert machine.shares("remove", "data").returncode == 0
    assert machine.mounted() == set() and machine.shares("list").stdout == ""
    until(lambda: not Path(f"/proc/{second}").exists())
    assert machine.shares("remove", "data").returncode == 0
    # And again.
    assert machine.shares("add", "data", "rw", "/srv/a b").returncode == 0
    assert machine.mounted() == {"data"}


def test_what_cannot_be_mounted_is_told_to_who_adds_it(machine: Machine) -> None:
    machine.serve()
    done = machine.shares("add", "data", "rw", "/bad")
    assert done.returncode == 1 and "no such thing" in done.stderr
    assert machine.shares("list").stdout == "data\tfailed\n"
    assert machine.shares("leave").returncode == 0 and machine.read("unmounted")[-1] == "-l /bad"


def test_a_process_that_was_killed_is_started_again(machine: Machine) -> None:
    machine.serve("home\trw\t/home/me\n")
    first = machine.process("home")
    os.kill(first, signal.SIGKILL)
    until(lambda: len(machine.read("started")) == 2 and machine.mounted() == {"home"} and machine.process("home") != first)
    # The mount of the dead one is taken away first.
    assert machine.read("unmounted")[-1] == "-l /home/me"


def test_another_service_finds_what_runs(machine: Machine) -> None:
    machine.serve("home\trw\t/home/me\n")
    machine.end_service()
    machine.serve("home\trw\t/home/me\n")
    assert machine.shares("add", "data", "rw", "/srv").returncode == 0
    assert machine.read("started") == ["home\trw\t/home/me", "data\trw\t/srv"]


def test_one_over_virtiofs_is_mounted_by_its_tag_and_has_no_process(machine: Machine, tmp_path: Path) -> None:
    place, other = tmp_path / "m" / "it's me", tmp_path / "m" / "me too"
    machine.serve(f"data-1\tvirtiofs-rw\t{place}\t{other}\nonly\tvirtiofs-ro\t{tmp_path}/m/only\n")
    assert sorted(machine.read("mounts")) == sorted([
        f"-t virtiofs -o nosuid,nodev data-1 {place}", f"-o bind {place} {other}",
        f"-t virtiofs -o nosuid,nodev,ro only {tmp_path}/m/only",
    ])  # fmt: skip
    assert machine.read("started") == [] and place.is_dir() and other.is_dir()
    assert sorted(machine.shares("list").stdout.splitlines()) == sorted(machine.read("seed/shares"))
    # What rings for another one mounts it no second time.
    assert machine.shares("add", "data", "rw", "/srv").returncode == 0
    assert len(machine.read("mounts")) == 3
    assert machine.shares("leave").returncode == 0
    assert {f"-l {place}", f"-l {other}", f"-l {tmp_path}/m/only"} <= set(machine.read("unmounted"))
    assert not list((machine.folder / "share" / "attached").iterdir())


def test_one_over_virtiofs_without_its_device_is_said(machine: Machine, tmp_path: Path) -> None:
    machine.serve(f"a\tvirtiofs-rw\t{tmp_path}/bad\n")
    assert machine.shares("list").stdout == "a\tfailed\n"
    assert "wherry-note share a: mount: no such device" in machine.read("console")


def test_without_a_seed_the_engine_waits_for_nothing(machine: Machine) -> None:
    (machine.folder / "seed" / "env").unlink()
    machine.serve()
    assert machine.read("started") == []


DATA = ("add", "data", "rw")


@pytest.mark.parametrize(
    "arguments",
    [
        DATA, ("add", "Data", "rw", "/srv"), ("add", "a" * 33, "rw", "/srv"), ("add", "../x", "rw", "/srv"),
        ("add", "data", "x", "/srv"), (*DATA, "srv"), (*DATA, "/srv/../etc"), (*DATA, "/"),
        (*DATA, "/srv\t/x"), (*DATA, "/srv\n"),
        (*DATA, "/etc/ssh"), (*DATA, "/srv", "/var/lib/docker/x"), (*DATA, "/srv/"), (*DATA, "//srv"),
        ("remove", "*"), ("remove", ""), ("keep",), ("other",), (),
    ],
)  # fmt: skip
def test_what_is_no_share_is_refused(machine: Machine, arguments: tuple[str, ...]) -> None:
    assert machine.shares(*arguments).returncode == 2
    assert not (machine.folder / "share").is_dir() or machine.shares("list").stdout == ""
