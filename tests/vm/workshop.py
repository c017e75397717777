"""A folder of this computer that a machine has, and containers with tools that work in it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.images.build import Built
from tests.vm.client import Client
from tests.vm.driver import Driver

TOOLS = Path(__file__).parent.parent / "shares"


@contextmanager
def shared_folder(machine: Driver) -> Iterator[Path]:
    """Shared for as long as it is entered, by the command that a user would type."""
    folder = Path(tempfile.mkdtemp(prefix="wherry-shared-"))
    try:
        folder.chmod(0o755)
        done = machine.wherry("share", "add", str(folder))
        assert done.returncode == 0, done.stderr.decode()
        yield folder
    finally:
        machine.wherry("share", "remove", str(folder))
        shutil.rmtree(folder, ignore_errors=True)


def load(client: Client, built: Built, *names: str) -> None:
    """Images of the tests, those that the engine lacks."""
    there = client("image", "ls", "--format", "{{.Repository}}").split()
    for name in names:
        if f"wherry.test/{name}" not in there:
            client("load", "-i", str(built.of(name)), timeout=900)


class Container:
    """One that runs as long as it is entered and does nothing; each call is a command in it."""

    def __init__(self, client: Client, image: str, binds: Sequence[str], *, options: Sequence[str] = ()) -> None:
        self._client, self._image = client, image
        self._options = [*options, *(word for bind in binds for word in ("-v", bind))]
        self.id = ""

    def __enter__(self) -> Container:
        words = ["run", "-d", "--init", *self._options, "--entrypoint", "sleep", f"wherry.test/{self._image}", "1000000"]
        self.id = self._client(*words).strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.run("rm", "-f", self.id)

    def run(
        self, *words: str, timeout: float = 600, cwd: str = "/", options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        return self._client.run("exec", "-w", cwd, *options, self.id, *words, timeout=timeout)

    def __call__(self, *words: str, timeout: float = 600, cwd: str = "/", options: Sequence[str] = ()) -> str:
        done = self.run(*words, timeout=timeout, cwd=cwd, options=options)
        assert done.returncode == 0, (words, done.returncode, done.stdout[-4000:].decode(), done.stderr[-4000:].decode())
        return done.stdout.decode()

    def sh(self, script: str, timeout: float = 600, cwd: str = "/") -> str:
        return self("sh", "-euc", script, timeout=timeout, cwd=cwd)

    def popen(self, *words: str) -> subprocess.Popen[bytes]:
        """Its output is a pipe; the caller ends it."""
        return self._client.popen("exec", "-i", self.id, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
