"""Files and folders between this computer and the machine, with docker cp's rules."""

from __future__ import annotations

import os
import posixpath
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from launcher.cli import pack, remote, unpack
from launcher.errors import Usage, WherryError
from launcher.report import Reporter


@dataclass(frozen=True)
class Place:
    """One side of a copy; `machine` is None for this computer."""

    machine: str | None
    path: str

    @property
    def contents_only(self) -> bool:
        """docker's `DIR/.`: what is in the folder, not the folder."""
        return self.path.endswith("/.")


_KIND: Final = 'if [ -d "$1" ]; then echo dir; elif [ -e "$1" ] || [ -L "$1" ]; then echo file; else echo none; fi'


def _kind(control: Path, path: str) -> str:
    return remote.call(control, ["sh", "-c", _KIND, "sh", path]).check(f"looking at {path}").stdout.decode().strip()


def destination(source_is_folder: bool, contents_only: bool, base: str, target: str, kind: str) -> tuple[str, str | None]:
    """The folder to unpack in, and the name the copy gets there (None: its contents go right into the folder)."""
    if kind == "dir":
        return target, None if contents_only else base
    if kind == "file" and source_is_folder:
        raise Usage(f"{target} is a file, a folder cannot take its place.")
    if kind == "none" and target.endswith("/") and not source_is_folder:
        raise Usage(f"there is no folder {target}.")
    trimmed = target.rstrip("/") or "/"
    return posixpath.dirname(trimmed) or ".", posixpath.basename(trimmed)


def copy_in(control: Path, source: str, target: Place, report: Reporter) -> None:
    path = Path(source)
    if not path.exists() and not path.is_symlink():
        raise WherryError(f"there is no {source} here.")
    folder = path.is_dir() and not path.is_symlink()
    contents = folder and Place(None, source).contents_only
    base = path.resolve().name if folder else path.name
    into, name = destination(folder, contents, base, target.path, _kind(control, target.path))
    feed = pack.feeder(entries(path, folder, name), report)
    remote.call(control, ["tar", "-x", "-f", "-", "-C", into], feed=feed).check(f"the copy to {target.path}")


def entries(path: Path, folder: bool, name: str | None) -> list[pack.Entry]:
    """The file, or the folder with what is in it, called `name`; without a name only what is in the folder."""
    found = [pack.Entry(name, path, path.lstat())] if name else []
    if folder:
        prefix = f"{name}/" if name else ""
        found += [pack.Entry(prefix + entry.name, entry.path, entry.found) for entry in pack.walk(path)]
    return found


def copy_out(control: Path, source: Place, target: str, report: Reporter) -> None:
    kind = _kind(control, source.path)
    if kind == "none":
        raise WherryError(f"there is no {source.path} in the machine.")
    contents = source.contents_only and kind == "dir"
    trimmed = posixpath.normpath(source.path)
    base = posixpath.basename(trimmed)
    there = Path(target)
    there_kind = "dir" if there.is_dir() else "file" if there.exists() else "none"
    wanted = there.as_posix() + ("/" if target.endswith(("/", os.sep)) else "")
    into, name = destination(kind == "dir", contents, base, wanted, there_kind)
    if not Path(into).is_dir():
        raise WherryError(f"there is no folder {into} here.")
    whole = contents or base in ("", "..")
    argv = ["tar", "-c", "-f", "-", "-C", *([trimmed, "."] if whole else [posixpath.dirname(trimmed) or ".", base])]
    _receive(control, argv, Path(into), strip=0 if whole else 1, name=name, report=report)


def _receive(control: Path, argv: Sequence[str], into: Path, *, strip: int, name: str | None, report: Reporter) -> None:
    """Unpack what the command writes while it writes it."""
    reading, writing = os.pipe()
    outcome: list[remote.Done | BaseException] = []

    def fetch() -> None:
        try:
            with os.fdopen(writing, "wb") as pipe:
                outcome.append(remote.call(control, argv, sink=lambda data: _write(pipe, data)))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    failed: Exception | None = None
    with os.fdopen(reading, "rb") as stream:
        try:
            unpack.unpack(stream, into, strip=strip, name=name, report=report)
        except (WherryError, OSError, ValueError) as error:
            failed = error
    thread.join()
    _judge(outcome[0], failed)


def _write(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(data)


def _judge(outcome: remote.Done | BaseException, failed: Exception | None) -> None:
    # A tar in the machine that failed explains a stream that cannot be read; a stream we refused explains a broken pipe.
    if isinstance(outcome, remote.Done) and outcome.code != 0:
        outcome.check("reading in the machine")
    if isinstance(failed, WherryError):
        raise failed
    if isinstance(outcome, BaseException) and not isinstance(outcome, BrokenPipeError):
        raise outcome
    if failed is not None:
        raise WherryError(f"the copy failed: {failed}") from failed
