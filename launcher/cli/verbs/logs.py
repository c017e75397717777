"""logs: the machine's logs; those that are files here are followed here, the engine's in the machine."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import click

from launcher.cli.app import App
from launcher.cli.options import machine_name, verb
from launcher.errors import WherryError

ENGINE_LOG: Final = "/var/lib/wherry/log/engine.log"
_LOOK_AGAIN: Final = 0.25


@click.command()
@click.argument("which", type=click.Choice(["serial", "engine", "keeper", "shares", "qemu"]), default="serial", metavar="[LOG]")
@machine_name
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added.")
@click.option("-n", "--tail", "count", type=click.IntRange(0), metavar="N", help="The last N lines only.")
@verb
def logs(app: App, which: str, name: str | None, follow: bool, count: int | None) -> int | None:
    """A log of the machine: serial (what it said while it started; the default), engine, keeper and shares (what wherry did),
    or qemu."""
    from launcher import machine

    chosen = app.name(name)
    if which == "engine":
        return _engine(app, chosen, follow, count)
    path = machine.logs_path(chosen, which)
    if app.settings.json:
        app.console.answer({"log": which, "lines": [line.decode(errors="replace") for line in _tail(path, count)]}, "")
        return None
    out = sys.stdout.buffer
    lines = _tail(path, count)
    for line in lines:
        out.write(line + b"\n")
    out.flush()
    if not lines and count != 0:
        app.console.story(f"{path} is empty.")
    if follow:
        for data in _added(path):
            out.write(data)
            out.flush()
    return None


def _engine(app: App, name: str, follow: bool, count: int | None) -> int | None:
    from launcher import control, store
    from launcher.cli import proxied, remote

    path = store.machine(name).control_socket
    control.connect(path).close()  # a machine that is off is not started for its log
    argv = ["tail", "-n", str(count) if count is not None else "+1", *(["-F"] if follow else []), ENGINE_LOG]
    if app.settings.json:
        text = remote.call(path, argv).check("reading the log").stdout.decode(errors="replace")
        app.console.answer({"log": "engine", "lines": text.splitlines()}, "")
        return None
    return proxied.run_exec(path, argv, env={}, cwd=None, tty=False, client=False, stdin=False)


def _tail(path: Path, count: int | None) -> list[bytes]:
    try:
        with path.open("rb") as file:
            return [line.rstrip(b"\r\n") for line in (deque(file, count) if count is not None else file)]
    except FileNotFoundError:
        raise WherryError(f"there is no {path.name} yet: the machine was never started.", hint="wherry up") from None


def _added(path: Path) -> Iterator[bytes]:
    """What is added to the file, for ever; a log that was cut and begun anew is read from its beginning."""
    file = path.open("rb")
    file.seek(0, os.SEEK_END)
    try:
        while True:
            data = file.read()
            if data:
                yield data
                continue
            if _is_new(path, file):
                file.close()
                file = path.open("rb")
                continue
            time.sleep(_LOOK_AGAIN)
    finally:
        file.close()


def _is_new(path: Path, file: IO[bytes]) -> bool:
    try:
        found, ours = path.stat(), os.fstat(file.fileno())
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) != (ours.st_dev, ours.st_ino) or found.st_size < file.tell()
