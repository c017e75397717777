"""The docker client on this computer: that of the guest image's lock, unpacked from the packages that its build fetched."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pytest

from launcher import host
from tests.vm.driver import Driver

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("docker-cli", "docker-compose", "docker-buildx")


def unpack(folder: Path) -> None:
    """Skips the test when a package is not there: an image that came from elsewhere was not built here."""
    debs = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wherry-build" / "debs"
    lock = (ROOT / "iso" / "locks" / f"{host.native_arch()}-testing.lock").read_text()
    versions = {line.split()[0]: line.split()[1] for line in lock.splitlines() if line[:1].isalpha() and len(line.split()) > 2}
    for package in PACKAGES:
        version = versions[package].replace(":", "%3a")
        end = f"{host.native_arch()}.deb"
        found = [debs / f"{package}_{version}_{end}", *sorted(debs.glob(f"{package}_*_{end}"))]
        deb = next((path for path in found if path.exists()), None)
        if deb is None:
            pytest.skip(f"{package} is not in {debs}: make iso fetches it")
        subprocess.run(["dpkg-deb", "-x", str(deb), str(folder)], check=True)


@contextlib.contextmanager
def following(stream: Any) -> Iterator[Any]:
    """A stream of docker-py, ended with its descriptor: its own close() leaves that to the response, which nobody closes."""
    try:
        yield stream
    finally:
        stream.close()
        stream._response.close()


def frames(stream: IO[bytes]) -> bytes:
    """The content of a stream without a terminal, all of it of stdout. Each piece has a head of 8 bytes, the stream's number
    and the length; what was written at once may come in several, and the other way round."""
    got = b""
    while head := stream.read(8):
        number, length = struct.unpack(">BxxxL", head)
        assert number == 1, head
        got += stream.read(length)
    return got


class Client:
    """Runs docker with nothing but the context to lead it."""

    def __init__(self, machine: Driver) -> None:
        self.machine = machine
        folder = machine.path / "client"
        if not folder.exists():
            unpack(folder)
        self.program = folder / "usr" / "bin" / "docker"
        plugins = Path(machine.environment["DOCKER_CONFIG"]) / "cli-plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        for plugin in (folder / "usr" / "libexec" / "docker" / "cli-plugins").iterdir():
            if not (plugins / plugin.name).exists():
                (plugins / plugin.name).symlink_to(plugin)
        assert machine.wherry("context", "use").returncode == 0
        [self.socket] = machine.path.glob("wherry/*/docker.sock")

    def run(
        self,
        *words: str,
        input: bytes = b"",  # noqa: A002  subprocess.run's own word
        timeout: float = 300,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {**self.machine.environment, **(env or {})}
        return subprocess.run(
            [str(self.program), *words],
            input=input,
            capture_output=True,
            timeout=timeout,
            cwd=cwd,
            env=environment,
            check=False,
        )

    def __call__(self, *words: str, **options: Any) -> str:
        done = self.run(*words, **options)
        assert done.returncode == 0, (words, done.stderr.decode())
        return done.stdout.decode()

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([str(self.program), *words], env=self.machine.environment, **options)
