"""One wherry home for tests: runs the real command as a user would, waits for what becomes true, leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from tests.processes import kill

SOAK = os.environ.get("WHERRY_SOAK") == "1"
WHERRY = Path(sys.executable).with_name("wherry")
START_SECONDS = 900  # a hang guard, never a measure

# The environment of a developer's terminal less what would lead wherry or docker elsewhere.
_KEPT = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "WHERRY_", "XDG_RUNTIME"))}


class Home:
    """A fresh WHERRY_HOME in a short path."""

    program = WHERRY

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="wherry-test-"))
        self.environment = {
            **_KEPT,
            "WHERRY_HOME": str(self.path / "home"),
            "XDG_RUNTIME_DIR": str(self.path),
            "DOCKER_CONFIG": str(self.path / "docker"),
            "WHERRY_CLIENT": "guest",  # whatever is installed on this computer
        }

    def wherry(
        self,
        *words: str,
        input: bytes | None = None,  # noqa: A002  subprocess.run's own word
        stdin: int | IO[Any] | None = None,
        timeout: float = 300,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run to the end; stdin is empty unless given."""
        source: dict[str, Any] = {"input": input} if input is not None else {"stdin": stdin or subprocess.DEVNULL}
        return subprocess.run(
            [str(self.program), *words],
            capture_output=True,
            timeout=timeout,
            env={**self.environment, **(env or {})},
            cwd=cwd or self.path,
            check=False,
            **source,
        )

    def popen(self, *words: str, stdin: int | IO[Any] = subprocess.DEVNULL, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([str(self.program), *words], stdin=stdin, env=self.environment, cwd=self.path, **options)

    def up(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        done = self.wherry("up", *words, timeout=START_SECONDS)
        assert done.returncode == 0, done.stderr.decode()
        return done

    def close(self) -> None:
        """Stop what runs, end what does not stop, remove everything."""
        for machine in (self.path / "home" / "machines").glob("[a-z0-9]*"):
            try:
                self.wherry("delete", "--force", "--yes", machine.name, timeout=60)
            except subprocess.TimeoutExpired:
                pass
        self.kill_all()
        shutil.rmtree(self.path, ignore_errors=True)

    def processes(self) -> list[psutil.Process]:
        """Keepers and QEMUs of this home: they work in its machine directories."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd().startswith(str(self.path)) and process.pid != os.getpid():
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def kill_all(self) -> None:
        while found := self.processes():  # a keeper may have started a QEMU as we looked
            kill(found)


class Driver(Home):
    """A home with one machine of the default name in it, started."""

    name = "default"

    def docker(self, *words: str, timeout: float = 300) -> str:
        done = self.wherry("docker", *words, timeout=timeout)
        assert done.returncode == 0, (words, done.stderr.decode())
        return done.stdout.decode()

    def ssh(self, command: str, timeout: float = 120) -> str:
        done = self.wherry("ssh", command, timeout=timeout)
        assert done.returncode == 0, (command, done.stdout.decode(), done.stderr.decode())
        return done.stdout.decode()

    def status(self, timeout: float = 300) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.wherry("status", "--json", timeout=timeout).stdout)["data"]
        return data

    def status_or_none(self) -> dict[str, Any]:
        """Empty while there is no machine yet."""
        data: dict[str, Any] = json.loads(self.wherry("status", "--json").stdout)["data"] or {}
        return data

    def container_state(self, name: str) -> str:
        done = self.wherry("docker", "inspect", "--format", "{{.State.Status}}", name)
        return done.stdout.decode().strip()

    def wait_for_container(self, name: str) -> None:
        self.wait_until(lambda: self.container_state(name) == "running", f"container {name} runs")

    def guest_has(self, command_line: str) -> bool:
        """Whether a process with exactly that command line is in the guest."""
        lines = self.ssh("ps -o args").splitlines()
        return command_line in [line.strip() for line in lines]

    def mended(self) -> set[str]:
        """The lines of the keeper's log about what was mended, each with its time: status has the last one alone."""
        logs = (self.path / "home" / "machines" / self.name).glob("keeper.log*")
        return {line for log in logs for line in log.read_text().splitlines() if ": mended: " in line}

    def wait_for_mended(self, words: str, before: set[str]) -> None:
        """Until such a line is there that was not `before`."""
        self.wait_until(lambda: any(words in line for line in self.mended() - before), f"the log tells of {words!r}")

    @staticmethod
    def wait_until(true: Callable[[], bool], what: str, seconds: float = 300) -> None:
        """Until it is so; the bound is a hang guard. A look may be no command: the pause keeps it from taking a processor."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.05)


def in_turn(commands: Sequence[subprocess.Popen[bytes]], timeout: float) -> list[tuple[int, bytes, bytes]]:
    """Results of commands that run at once."""
    results = []
    for command in commands:
        out, err = command.communicate(timeout=timeout)
        results.append((command.returncode, out, err))
    return results


def get_port(port: int, patience: float = 3) -> bytes:
    """A new connection each time: one that was begun while nobody answered is only tried again after seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as stream:
        stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
        got = b""
        while data := stream.recv(65536):
            got += data
        return got


def answers(port: int) -> bool:
    """Whether the page of the hello image is served there now: for tests that ask again."""
    try:
        return b"Hello from Wherry." in get_port(port)
    except OSError:
        return False
