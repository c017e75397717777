"""Which process is ours. A pid alone proves nothing: it is given to others, and a killed keeper may not have noted it."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from launcher import host

_LOOKS_EVERY: Final = 0.05  # seconds: of such a process nobody is told
# The word after -name that launcher.qemu.command gives: wherry-NAME-TOKEN.
_NAMED: Final = re.compile(r"wherry-[a-z0-9-]+-(?P<token>[0-9a-f]{16})")


@dataclass(frozen=True)
class Found:
    """A QEMU of ours."""

    pid: int
    stamp: str  # host.process_stamp: stays when the clock is set
    token: str
    argv: tuple[str, ...]

    def value(self, option: str) -> str:
        """The word after an option of its command line, or nothing."""
        return next((word for before, word in pairwise(self.argv) if before == option), "")


def new_token() -> str:
    return secrets.token_hex(8)


def process_is(pid: int, stamp: str, token: str) -> bool:
    """Whether `pid` is still the process that we started: same pid, same stamp, our token in its command line."""
    return pid > 0 and stamp != "" and host.current().process_stamp(pid) == stamp and _token(_argv(pid)) == token


def ended(pid: int, stamp: str, seconds: float | None) -> bool:
    """Wait so long, or for ever, for the end of a process that is not our child; whether it has ended. One that got its pid
    since is another."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while host.current().process_stamp(pid) == stamp:
        if deadline is not None and time.monotonic() >= deadline:
            return False
        time.sleep(_LOOKS_EVERY)
    return True


def qemus(folder: Path) -> list[Found]:
    """The QEMUs that were started by us in that machine directory, found among all processes: for when no file names them."""
    import psutil

    found = []
    for pid in psutil.pids():
        argv = _argv(pid)
        token = _token(argv)
        stamp = host.current().process_stamp(pid) if token else None
        if token and stamp and _works_in(pid, folder):
            found.append(Found(pid, stamp, token, argv))
    return found


def qemu(pid: int, stamp: str, token: str) -> Found | None:
    """The QEMU of that pid, if it is still ours."""
    return Found(pid, stamp, token, _argv(pid)) if process_is(pid, stamp, token) else None


def holders(file: Path) -> list[str]:
    """Processes of this user that have the file open, "pid NAME" each, as far as the system tells."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if any(_same(opened.path, file) for opened in process.open_files()):
                found.append(f"{process.pid} {process.name()}")
        except (psutil.Error, OSError):
            continue
    return found


def _argv(pid: int) -> tuple[str, ...]:
    import psutil

    try:
        return tuple(psutil.Process(pid).cmdline())
    except (psutil.Error, OSError):
        return ()


def _token(argv: tuple[str, ...]) -> str:
    """The token in a QEMU's command line; empty for other processes."""
    for option, word in pairwise(argv):
        if option == "-name" and (match := _NAMED.fullmatch(word)):
            return match["token"]
    return ""


def _works_in(pid: int, folder: Path) -> bool:
    import psutil

    try:
        return _same(psutil.Process(pid).cwd(), folder)
    except (psutil.Error, OSError):
        return False


def _same(one: str, other: Path) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False
