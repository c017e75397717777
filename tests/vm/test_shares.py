"""Folders of this computer in containers: there, in both directions, and still there after whatever ends on the way."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.vm.driver import START_SECONDS, Driver
from tests.vm.test_life import keeper_of

pytestmark = pytest.mark.vm
HELLO = "wherry.internal/hello"
GONE = "Transport endpoint is not connected"


class Shared(Driver):
    """A machine whose user has a home of their own, with something private in it."""

    def __init__(self) -> None:
        super().__init__()
        self.home = self.path / "me"
        self.code = self.home / "code"
        self.code.mkdir(parents=True)
        (self.code / "hello").write_text("from here\n")
        (self.home / ".ssh").mkdir()
        (self.home / ".ssh" / "id").write_text("secret")
        self.environment["HOME"] = str(self.home)

    def server(self) -> psutil.Process:
        """The process that serves."""
        return next(process for process in self.processes() if "launcher.keeper.shares" in process.cmdline())

    def inside(self, command: str, *options: str) -> str:
        """In a container of its own, with the code at /code."""
        return self.docker("run", "--rm", "-v", f"{self.code}:/code", *options, HELLO, "sh", "-c", command)

    def until_inside(self, name: str, command: str) -> tuple[float, list[str]]:
        """In a container that runs: how long until it succeeds, and what was said at each try, less wherry's own words."""
        began, said = time.monotonic(), list[str]()

        def works() -> bool:
            done = self.wherry("docker", "exec", name, "sh", "-c", f"exec 2>&1; {command}")
            said.append(done.stdout.decode())
            return done.returncode == 0

        self.wait_until(works, command)
        return time.monotonic() - began, said


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    driver = Shared()
    try:
        driver.up()
        yield driver
    finally:
        driver.close()


@pytest.fixture
def container(shared: Shared) -> Iterator[str]:
    """One that runs on, with the code at /code."""
    name = "goes-on"
    shared.docker("run", "-d", "--name", name, "-v", f"{shared.code}:/code", HELLO, "sleep", "100000")
    try:
        yield name
    finally:
        shared.wherry("docker", "rm", "-f", name)


def test_a_bind_is_the_folder_of_this_computer(shared: Shared) -> None:
    said = shared.inside(
        "cat /code/hello && echo from there >/code/made && mkdir /code/folder && mv /code/made /code/folder/moved"
    )
    assert said == "from here\n"
    moved = shared.code / "folder" / "moved"
    assert moved.read_text() == "from there\n" and moved.owner() == shared.code.owner()
    assert shared.status()["health"]["parts"]["shares"] == {"state": "ok", "detail": "1"}


def test_a_change_here_is_seen_by_the_next_open_there(shared: Shared, container: str) -> None:
    shared.until_inside(container, "grep -q 'from here' /code/hello")
    (shared.code / "hello").write_text("changed\n")
    try:
        seconds, _ = shared.until_inside(container, "grep -q changed /code/hello")
    finally:
        (shared.code / "hello").write_text("from here\n")
    print(f"seen after {seconds:.1f} s, of which most is the command")


def test_what_is_private_is_not_there(shared: Shared) -> None:
    done = shared.wherry("docker", "run", "--rm", "-v", f"{shared.home}:/me", HELLO, "sh", "-c", "ls -a /me; cat /me/.ssh/id")
    assert b".ssh" not in done.stdout and b"secret" not in done.stdout and b"code" in done.stdout
    done = shared.wherry("docker", "run", "--rm", "-v", f"{shared.home}/.ssh:/keys", HELLO, "ls", "/keys")
    assert done.returncode != 0 and b"share add" in done.stderr and b"secret" not in done.stdout


@pytest.mark.parametrize("ends", ["keeper", "server", "connections"])
def test_the_same_container_goes_on(shared: Shared, container: str, ends: str) -> None:
    shared.until_inside(container, "cat /code/hello")
    if ends == "connections":
        shared.wherry("ssh", "killall sshd-session")
    else:
        process = keeper_of(shared) if ends == "keeper" else shared.server()
        process.kill()
        shared.wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "it is gone")
    seconds, said = shared.until_inside(container, f"cat /code/hello && echo {ends} >/code/after")
    assert said[-1] == "from here\n" and not [words for words in said if GONE in words]
    assert (shared.code / "after").read_text() == f"{ends}\n"
    print(f"after the end of the {ends} works again within {seconds:.1f} s, of which a command is some")


def test_a_file_system_that_was_killed_is_mounted_again(shared: Shared) -> None:
    """Who has it bound has lost it; the next container has not."""
    shared.ssh("kill -9 $(cat /run/wherry/share/pids/home)")
    shared.wait_until(lambda: shared.wherry("ssh", f"cat {shared.code}/hello").returncode == 0, "it is mounted")
    assert shared.inside("cat /code/hello") == "from here\n"


def test_no_lack_of_memory_ends_it(shared: Shared, container: str) -> None:
    """Containers that have it bound would see ENOTCONN for good. They themselves may be ended."""
    process = "$(cat /run/wherry/share/pids/home)"
    assert shared.ssh(f"cat /proc/{process}/comm /proc/{process}/oom_score_adj") == "share\n-1000\n"
    assert shared.ssh("cat /proc/$(cat /run/wherry/share/keepers/home)/oom_score_adj") == "-1000\n"
    assert shared.docker("exec", container, "cat", "/proc/1/oom_score_adj") == "0\n"


def test_what_moves_a_lot_of_data_gives_way(shared: Shared) -> None:
    """The share's process and sshd's for its connection; the keeper's own and the engine do not."""
    shared.ssh("true")
    told = shared.ssh(
        "for p in $(pidof share sshd-session dockerd); do echo $(cat /proc/$p/comm) $(cat /proc/$p/autogroup); done"
    )
    nice = [(words[0], words[1], words[-1]) for words in map(str.split, told.splitlines())]
    assert {value for name, _, value in nice if name == "share"} == {"5"}
    assert {value for name, _, value in nice if name == "dockerd"} == {"0"}
    # Of sshd's processes those of one session, which are in one group.
    assert len({group for name, group, value in nice if name == "sshd-session" and value == "5"}) == 1
    assert {group for name, group, value in nice if name == "sshd-session" and value == "0"}


def test_a_folder_comes_and_goes_while_the_machine_runs(shared: Shared, container: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("added\n")
    run = ("docker", "run", "--rm", "-v", f"{tmp_path}:/more", HELLO)
    done = shared.wherry(*run, "cat", "/more/file")
    assert done.returncode != 0 and f"share add {tmp_path}".encode() in done.stderr
    assert shared.wherry("share", "add", f"{tmp_path}:ro").returncode == 0
    done = shared.wherry(*run, "sh", "-c", "cat /more/file; echo x >/more/made")
    assert done.stdout == b"added\n" and b"Read-only" in done.stderr and not (tmp_path / "made").exists()
    assert shared.wherry("share", "add", str(tmp_path)).returncode == 0
    assert shared.wherry(*run, "sh", "-c", "echo x >/more/made").returncode == 0
    assert (tmp_path / "made").read_text() == "x\n"
    listing = json.loads(shared.wherry("share", "list", "--json").stdout)["data"]
    assert [share["state"] for share in listing] == ["served", "served"]
    assert shared.wherry("share", "remove", str(tmp_path)).returncode == 0
    assert str(tmp_path) not in shared.ssh("cat /proc/mounts")
    # Nobody else noticed.
    shared.until_inside(container, "cat /code/hello")


def test_nothing_listens_for_it_on_any_network(shared: Shared) -> None:
    connections = [one for one in shared.server().net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert connections == []
    listening = [line for line in shared.ssh("netstat -ltn").splitlines() if line.startswith("tcp")]
    assert sorted(line.split()[3] for line in listening) == ["10.0.2.15:22", "10.0.2.53:53"]


def test_a_container_that_comes_back_by_itself_has_its_files(shared: Shared) -> None:
    shared.docker("run", "-d", "--name", "again", "--restart", "always", "-v", f"{shared.code}:/code", HELLO, "sh", "-c",
                  "cat /code/hello >>/code/starts; sleep 100000")  # fmt: skip
    starts = shared.code / "starts"
    try:
        shared.wait_until(lambda: starts.exists() and starts.read_text() == "from here\n", "it has started")
        assert shared.wherry("restart", timeout=START_SECONDS).returncode == 0
        shared.wait_until(lambda: starts.read_text() == "from here\n" * 2, "it has started again")
    finally:
        shared.wherry("docker", "rm", "-f", "again")


def test_the_machine_stops_though_nobody_answers(shared: Shared, container: str) -> None:
    """With a container that is in the middle of reading."""
    script = "while :; do cat /code/hello; echo x >/code/written; done"
    shared.docker("exec", "-d", container, "sh", "-c", script)
    shared.wait_until((shared.code / "written").exists, "it reads and writes")
    server = shared.server()
    server.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert shared.wherry("stop", timeout=300).returncode == 0
        print(f"stopped in {time.monotonic() - began:.1f} s with a server that stands still")
    finally:
        if server.is_running():
            server.send_signal(signal.SIGCONT)
    shared.up()
