"""A machine on Windows, as far as Wine is one: started by its QEMU under software emulation, used, stopped, lost and found."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.windows import fixture
from tests.windows.wine import ROOT, Windows, path

ISO: Final = ROOT / "build/wherry-amd64.iso"
_SECONDS: Final = 600  # a hang guard: emulated, and within Wine

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
        self.environment = {"WHERRY_HOME": r"C:\w é\home", "DOCKER_CONFIG": r"C:\w é\docker", "PYTHONUTF8": "1"}

    def python(self, *words: str, data: bytes = b"") -> tuple[int, str]:
        return self._windows.run([self._windows.python, *words], data=data, timeout=_SECONDS, environment=self.environment)

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

    def logs(self) -> str:
        files = [self.folder / "home/machines/default" / name for name in ("keeper.log", "qemu.log", "serial.log")]
        return "\n".join(f"{file.name}:\n{file.read_text(errors='replace')[-6000:]}" for file in files if file.exists())


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if why := fixture.missing():
        pytest.skip(why)
    if not ISO.exists():
        pytest.skip(f"there is no {ISO.name}: make iso")
    with fixture.alone() as windows:
        made = Machine(windows)
        made.wherry("up", "--iso", path(ISO), "--no-home", "--cpus", "2", "--memory", "1G", "--disk", "4G")
        yield made


def test_it_runs_and_says_how(machine: Machine) -> None:
    assert machine.status() == "running"
    assert "npipe:////./pipe/wherry-default-" in machine.wherry("status")


def test_a_container_has_its_input_and_its_exit_code(machine: Machine) -> None:
    data = bytes(range(256)) * 4096
    code, said = machine.run("run", "-i", "wherry/hello", "sh", "-c", "md5sum; echo says é; exit 7", data=data)
    assert (code, hashlib.md5(data).hexdigest() in said, "says é" in said) == (7, True, True), said


def test_docker_of_windows_reaches_it_by_its_pipe(machine: Machine) -> None:
    code, said = machine.python("-c", _ENGINE)
    assert code == 0, said
    address, ended, words, echoed = json.loads(said.splitlines()[-1])
    assert address.startswith("npipe:////./pipe/wherry-default-")
    assert (ended, words, echoed) == (5, "by the pipe\n", "until its end")


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
