"""A machine on Windows, as far as Wine is one: started by its QEMU under software emulation, used, stopped, lost and found."""

from __future__ import annotations

import hashlib
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.loopback import free_port, listens, until
from tests.windows import docker_cli, fixture
from tests.windows.wine import ROOT, Windows, path

ISO: Final = ROOT / "build/wherry-amd64.iso"
_SECONDS: Final = 600  # a hang guard: emulated, and within Wine
_HTTPD: Final = ("wherry/hello", "httpd", "-f", "-p", "80", "-h", "/www")
_GREETING: Final = "Hello from Wherry."
_FOLDER: Final = "drei Äpfel é"

# docker's library for Python, through the named pipe that the context names.
_ENGINE: Final = """
import json, os, pathlib, docker
meta = json.loads(next(pathlib.Path(os.environ["DOCKER_CONFIG"]).glob("contexts/meta/*/meta.json")).read_text())
address = meta["Endpoints"]["docker"]["Host"]
client = docker.DockerClient(base_url=address, timeout=300)
container = client.containers.create("wherry.internal/hello", ["sh", "-c", "echo by the pipe; exit 5"])
container.start()
found = [address, container.wait()["StatusCode"], container.logs().decode()]
container.remove()
# The end of what a client sends, which a pipe tells by an empty message: cat ends, and its output is all there.
echo = client.containers.create("wherry.internal/hello", ["cat"], stdin_open=True)
stream = echo.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
echo.start()
import win32file
stream.sendall(b"until its end")
win32file.WriteFile(stream._handle, b"")
echoed = b""
while data := stream.recv(4096):
    echoed += data
echo.remove(force=True)
print(json.dumps([*found, echoed[8:].decode()]))
"""


class Machine:
    """The command line of a home of its own."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self.folder = windows.folder / "prefix/drive_c/w é"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        (self.folder / "nur zum Lesen").mkdir()
        self.environment = {"WHERRY_HOME": r"C:\w é\home", "DOCKER_CONFIG": r"C:\w é\docker", "PYTHONUTF8": "1"}

    @property
    def drive(self) -> Path:
        """C:, as this system has it."""
        return self._windows.folder / "prefix/drive_c"

    @property
    def windows_python(self) -> Path:
        return self._windows.python

    def program(self, *words: str | Path, data: bytes = b"", search: str = "") -> tuple[int, str]:
        """Any program; `search` is one more folder on its PATH."""
        more = {"WINEPATH": f"{path(self._windows.qemu)};{search}"} if search else {}
        return self._windows.run([*words], data=data, timeout=_SECONDS, environment={**self.environment, **more})

    def python(self, *words: str, data: bytes = b"") -> tuple[int, str]:
        return self.program(self.windows_python, *words, data=data)

    def run(self, *words: str, data: bytes = b"") -> tuple[int, str]:
        """A command with this input: its exit code and what is said."""
        return self.python("-m", "launcher", *words, data=data)

    def wherry(self, *words: str) -> str:
        """What is said by a command that succeeds."""
        code, said = self.run(*words)
        assert code == 0, f"{words}: {code}\n{said}\n{self.logs()}"
        return said

    def status(self) -> str:
        return str(json.loads(self.run("--json", "status")[1])["data"]["status"])

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "home/machines/default/state.json").read_bytes())
        return found

    def address(self) -> str:
        """Where docker's context leads."""
        meta = next((self.folder / "docker").glob("contexts/meta/*/meta.json"))
        return str(json.loads(meta.read_bytes())["Endpoints"]["docker"]["Host"])

    def logs(self) -> str:
        files = [self.folder / "home/machines/default" / name for name in ("keeper.log", "qemu.log", "serial.log")]
        return "\n".join(f"{file.name}:\n{file.read_text(errors='replace')[-6000:]}" for file in files if file.exists())


def _greets(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=_SECONDS) as answer:
            return _GREETING in answer.read().decode()
    except OSError:
        return False


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if why := fixture.missing():
        pytest.skip(why)
    if not ISO.exists():
        pytest.skip(f"there is no {ISO.name}: make iso")
    with fixture.alone() as windows:
        made = Machine(windows)
        share = r"C:\w é\nur zum Lesen:ro"
        made.wherry("up", "--iso", path(ISO), "--share", share, "--cpus", "2", "--memory", "1G", "--disk", "4G")
        yield made


def test_it_runs_and_says_how(machine: Machine) -> None:
    assert machine.status() == "running"
    assert "npipe:////./pipe/wherry-default-" in machine.wherry("status")


def test_a_container_has_its_input_and_its_exit_code(machine: Machine) -> None:
    data = bytes(range(256)) * 4096
    code, said = machine.run("run", "-i", "wherry/hello", "sh", "-c", "md5sum; echo says é; exit 7", data=data)
    assert (code, hashlib.md5(data).hexdigest() in said, "says é" in said) == (7, True, True), said


def test_a_published_port_is_there_for_linux_and_windows_and_goes_with_its_container(machine: Machine) -> None:
    port = free_port()
    machine.wherry("run", "-d", "--name", "web", "-p", f"{port}:80", *_HTTPD)
    assert _greets(port)
    read = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/', timeout={_SECONDS}).read())"
    code, said = machine.python("-c", read)
    assert code == 0 and _GREETING in said, said
    machine.wherry("docker", "rm", "-f", "web")
    until(lambda: not listens(port))


def test_folders_with_blanks_and_accents_are_seen_from_both_sides(machine: Machine) -> None:
    """In the home, which a machine has by default, and one that is shared to be read."""
    shares = {share["id"]: share for share in json.loads(machine.run("--json", "share", "list")[1])["data"]}
    home = shares.pop("home")["path"]
    assert home.startswith("C:\\users\\") and [share["path"] for share in shares.values()] == [r"C:\w é\nur zum Lesen"]
    here = machine.drive / home[3:].replace("\\", "/")
    for name, text in ((f"{_FOLDER}/da ü.txt", "von hier é\n"), (".ssh/id", "secret\n")):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(text)
    (machine.folder / "nur zum Lesen/x").write_text("zum Lesen\n")
    script = "cat /w/da* /r/x; echo dort ß >'/w/neu ö.txt'; touch /r/y 2>&1; cat /h/.ssh/id 2>&1; exit 3"
    mounts = ("-v", rf"{home}\{_FOLDER}:/w", "-v", r"c:/w é/nur zum Lesen:/r", "--mount", f"type=bind,source={home},target=/h")
    code, said = machine.run("run", *mounts, "wherry/hello", "sh", "-c", script)
    assert code == 3 and "von hier é\nzum Lesen\n" in said, said
    assert "Read-only file system" in said and "id': No such file" in said and "secret" not in said, said
    assert not (machine.folder / "nur zum Lesen/y").exists()
    written = here / _FOLDER / "neu ö.txt"
    assert written.read_text() == "dort ß\n"
    read = f"print(open({home!r} + r'\\{_FOLDER}\\neu ö.txt', encoding='utf-8').read())"
    code, said = machine.python("-c", read)
    assert code == 0 and "dort ß" in said, said
    shutil.rmtree(here / _FOLDER)
    shutil.rmtree(here / ".ssh")


def test_what_is_copied_into_the_machine_can_be_run_there(machine: Machine) -> None:
    (machine.folder / "los é.sh").write_bytes(b"#!/bin/sh\necho runs\n")
    machine.wherry("cp", r"C:\w é\los é.sh", "default:/root/los é.sh")
    assert machine.wherry("ssh", "'/root/los é.sh'; rm '/root/los é.sh'") == "runs\n"


def test_docker_of_windows_reaches_it_by_its_pipe(machine: Machine) -> None:
    code, said = machine.python("-c", _ENGINE)
    assert code == 0, said
    address, ended, words, echoed = json.loads(said.splitlines()[-1])
    assert address.startswith("npipe:////./pipe/wherry-default-")
    assert (ended, words, echoed) == (5, "by the pipe\n", "until its end")


@pytest.fixture(scope="module")
def docker(machine: Machine) -> Path:
    """docker.exe in a folder of its own, on no PATH."""
    try:
        made = docker_cli.docker()
    except docker_cli.Unavailable as why:
        pytest.skip(str(why))
    folder = machine.folder / "Docker é"
    folder.mkdir()
    return Path(shutil.copy(made, folder))


def test_dockers_own_client_speaks_through_the_pipe(machine: Machine, docker: Path) -> None:
    """By the context that `up` made, which is the current one where no other engine is, and by the pipe's own name."""
    address = machine.address()

    def done(*words: str, data: bytes = b"") -> str:
        code, said = machine.program(docker, *words, data=data)
        assert code == 0, said
        return said

    assert address.startswith("npipe:////./pipe/wherry-default-")
    said = done("-H", address, "version", "--format", "{{.Client.Os}} {{.Server.Os}}")
    assert said.strip() == "windows linux"
    # The end of its input goes over as an empty message; the container's cat ends, and docker with it.
    folder = machine.folder / "nur zum Lesen"
    data = "é".encode() * 100_000
    mount = ("-v", r"C:\w é\nur zum Lesen:/r")
    words = ("run", "-i", "--rm", *mount, "wherry.internal/hello", "sh", "-c", "cat | md5sum; ls /r")
    (folder / "da").touch()
    said = done(*words, data=data)
    assert said.split() == [hashlib.md5(data).hexdigest(), "-", "da", "x"], said
    done(
        "--context",
        "wherry",
        "run",
        "-d",
        "--name",
        "log",
        "wherry.internal/hello",
        "sh",
        "-c",
        "for i in 1 2 3; do echo line $i; sleep 1; done",
    )
    assert done("--context", "wherry", "logs", "-f", "log") == "line 1\nline 2\nline 3\n"
    assert done("-H", address, "rm", "log").strip() == "log"


def test_wherry_docker_uses_the_client_of_this_computer(machine: Machine, docker: Path) -> None:
    """Its words, streams and exit code are the client's own, which is led to the machine."""
    search = r"C:\w é\Docker é"
    code, said = machine.program(machine.windows_python, "-m", "launcher", "--debug", "docker", "ps", search=search)
    assert code == 0 and rf"client: {search}\docker.exe" in said and "CONTAINER ID" in said, said
    words = ("-m", "launcher", "run", "-i", "wherry/hello", "sh", "-c", "cat; exit 9")
    assert machine.program(machine.windows_python, *words, data=b"by docker.exe", search=search) == (9, "by docker.exe")


def test_a_killed_qemu_is_started_again_with_its_containers(machine: Machine) -> None:
    port = free_port()
    machine.wherry("run", "-d", "--restart", "always", "--name", "again", "-p", f"{port}:80", *_HTTPD)
    machine.wherry("ssh", "sync")  # what is not on the disk yet is lost, also what the engine knows of a container
    before = machine.state()
    machine.python("-c", f"import psutil; psutil.Process({before['qemu_pid']}).kill()")
    until(lambda: machine.state()["qemu_pid"] not in (None, before["qemu_pid"]) and _greets(port), _SECONDS)
    assert machine.state()["keeper_pid"] == before["keeper_pid"]
    assert "started again, containers followed their restart policies" in machine.wherry("status")
    machine.wherry("docker", "rm", "-f", "again")


def test_a_lost_keeper_takes_the_machine_along_gently(machine: Machine) -> None:
    """Its pipes end with it, and nobody else can have that QEMU: the next start has it powered off, and begins anew."""
    machine.wherry("up")
    before = machine.state()
    machine.python("-c", f"import psutil; psutil.Process({before['keeper_pid']}).kill()")
    said = machine.wherry("up")
    assert "the machine was powered off and started again" in said
    assert machine.status() == "running" and machine.state()["qemu_pid"] != before["qemu_pid"]
    assert machine.run("run", "wherry/hello", "true")[0] == 0


def test_it_stops_and_nothing_of_it_runs(machine: Machine) -> None:
    machine.wherry("up")
    pids = [machine.state()["qemu_pid"], machine.state()["keeper_pid"]]
    machine.wherry("stop")
    assert machine.status() == "stopped"
    assert "False False" in machine.python("-c", f"import psutil; print(*map(psutil.pid_exists, {pids}))")[1]
