"""The only door to subprocess: logs the command, gives it no stdin, names a program that is missing and where it was sought."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from launcher.errors import MissingOnHost, WherryError, of_start, of_system

log = logging.getLogger("wherry.proc")

Process = subprocess.Popen[bytes]
TimeoutExpired = subprocess.TimeoutExpired


def find(program: str, extra: Sequence[Path] = (), *, path: str | None = None) -> Path | None:
    """The program on PATH (or `path`), then in the folders `extra`; None when it is nowhere."""
    found = shutil.which(program, path=path)
    if found is None and extra:
        found = shutil.which(program, path=os.pathsep.join(os.fspath(folder) for folder in extra))
    return Path(found) if found else None


def run(
    argv: Sequence[str | Path], *, timeout: float, cwd: Path | None = None, env: Mapping[str, str] | None = None,
    good: Collection[int] = (0,),
) -> str:  # fmt: skip
    """Run to the end and return stdout (UTF-8, bad bytes replaced).

    Raises MissingOnHost when the program is not there or not started, WherryError with its stderr when it outlasts `timeout`
    seconds or its exit code is none of the `good` ones.
    """
    words = [os.fspath(word) for word in argv]
    log.debug("+ %s", shlex.join(words))
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, cwd=cwd, env=env, check=False
        )
    except OSError as error:
        raise not_started(words[0], error) from error
    except subprocess.TimeoutExpired as error:
        raise WherryError(f"{words[0]} gave no answer within {timeout:g} s.") from error
    if done.returncode not in good:
        detail = done.stderr.decode(errors="replace").strip()
        raise WherryError(f"{Path(words[0]).name} failed with exit code {done.returncode}.", detail=detail or None)
    return done.stdout.decode(errors="replace")


def interactive(
    argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdout: int | None = None
) -> int:
    """Run on our own terminal, to the end; the exit code. `stdout`: where what it says goes, in place of ours.

    Raises MissingOnHost when the program is not there or not started.
    """
    words = [os.fspath(word) for word in argv]
    log.debug("+ %s", shlex.join(words))
    try:
        return subprocess.run(words, cwd=cwd, env=env, stdout=stdout, check=False).returncode
    except OSError as error:
        raise not_started(words[0], error) from error


def spawn(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[Any] = subprocess.DEVNULL,
    stdout: int | IO[Any] = subprocess.DEVNULL,
    stderr: int | IO[Any] = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    detach: Mapping[str, Any] | None = None,
    tied: Mapping[str, Any] | None = None,
    on_tied: Callable[[], None] = lambda: None,
) -> Process:
    """Start and return at once; `detach` holds the keywords of the host module that cut it loose from the terminal, `tied`
    those for where the system forbids that, which `on_tied` then hears of. Raises MissingOnHost."""
    words = [os.fspath(word) for word in argv]
    log.debug("+ %s", shlex.join(words))

    def start(options: Mapping[str, Any]) -> Process:
        return subprocess.Popen(
            words, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds, **options
        )

    try:
        return start(detach or {})
    except PermissionError as error:
        if tied is None:
            raise not_started(words[0], error) from error
    except OSError as error:
        raise not_started(words[0], error) from error
    try:
        process = start(tied)
    except OSError as error:
        raise not_started(words[0], error) from error
    on_tied()
    return process


DEVNULL = subprocess.DEVNULL
PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT


def not_started(program: str, error: OSError) -> WherryError:
    """Not there, or why the system starts it not; or what is wrong with the folder in which it was to be started."""
    if error.filename is not None and os.fspath(error.filename) != program:
        return of_system(error)
    return missing(program) if isinstance(error, FileNotFoundError) else of_start(program, error)


def missing(program: str) -> MissingOnHost:
    return MissingOnHost(f"{program} is not on this computer (sought in PATH: {os.environ.get('PATH', '')}).")
