"""A real registry on this computer's loopback, which the engine reaches as 10.0.2.2 without TLS."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS = 60  # a hang guard


class Registry:
    """Docker's own registry, out of Debian's package."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.name = f"10.0.2.2:{port}"  # as the engine knows it

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.address}/v2/{path}", timeout=SECONDS) as answer:
            return json.load(answer)


@contextmanager
def registry(program: Path, folder: Path) -> Iterator[Registry]:
    """Runs it with its data in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        made = Registry(free.getsockname()[1])
    config = folder / "registry.yml"
    storage = f"{{filesystem: {{rootdirectory: {folder}}}}}"
    config.write_text(f"version: 0.1\nlog: {{level: warn}}\nstorage: {storage}\nhttp: {{addr: {made.address}}}\n")
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([str(program), "serve", str(config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            _wait(made, process, folder / "registry.log")
            yield made
        finally:
            process.kill()
            process.wait()


def _wait(made: Registry, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            made.get("")
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"the registry does not answer: {log.read_text()}")
