"""Whether a machine is there from login on: a login item of the system that runs the machine's doorman."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, NamedTuple

from launcher import store
from launcher.errors import Refused
from launcher.host.login import LoginItem, login
from launcher.machine.settings import existing
from launcher.store import MachineDir

_DOORMAN: Final = "launcher.machine.doorman"
LOG: Final = "doorman.log"  # what it says, in the machine's folder, where nobody keeps the words of what starts at login
_MORE_SECONDS: Final = 90  # beside those of the containers: for the guest, and for one that must be ended


class Autostart(NamedTuple):
    """`now`: the machine starts at login; else its first use starts it. `program`: what is called for that."""

    enabled: bool
    now: bool = False
    program: str = ""


def enable(name: str, *, now: bool) -> str:
    """From the next login on; where that is written down. Raises NoSuchMachine, MissingOnHost, and Refused when a machine of
    another home with that name has it."""
    directory = existing(name)
    _check_home(directory)
    seconds = directory.read_config().stop_seconds + _MORE_SECONDS
    path = os.environ.get("PATH", os.defpath)
    return login().enable(LoginItem(_label(name), f"wherry machine {name}", _words(directory, now), path, seconds))


def disable(directory: MachineDir) -> bool:
    """Whether it was enabled. A machine that runs goes on, and so does who waits for the end of the session."""
    if _home_of(login().read(_label(directory.name))) != _own_home():
        return False
    return login().disable(_label(directory.name), end=False)


def forget_all() -> list[str]:
    """Disable every machine's of this home, also of those that are gone, and end who holds a socket or waits: their names."""
    system, gone = login(), []
    for label in system.labels(_label("")):
        if _home_of(system.read(label)) == _own_home():
            system.disable(label, end=True)
            gone.append(label.removeprefix(_label("")))
    return gone


def status(name: str) -> Autostart:
    """Raises NoSuchMachine, Damaged."""
    found = login().read(_label(existing(name).name))
    if not found or _home_of(found) != _own_home():
        return Autostart(False)
    return Autostart(True, "--now" in found, found[0])


def _label(name: str) -> str:
    return f"wherry-{name}"


def _words(directory: MachineDir, now: bool) -> tuple[str, ...]:
    home = _own_home()
    more = (*(["--now"] if now else []), *(["--home", home] if home else []))
    return (sys.executable, "-P", "-m", _DOORMAN, directory.name, *more)


def _own_home() -> str:
    """The moved one; empty for the user's data folder, beside which the cache has a place of its own."""
    return str(store.home()) if os.environ.get("WHERRY_HOME") else ""


def _home_of(words: tuple[str, ...] | None) -> str | None:
    """As `_own_home`, of a login item; None for none."""
    if words is None:
        return None
    return words[words.index("--home") + 1] if "--home" in words[:-1] else ""


def _check_home(directory: MachineDir) -> None:
    other = _home_of(login().read(_label(directory.name)))
    if other is None or other == _own_home() or (other and not Path(other, "machines", directory.name).exists()):
        return
    moved = f"WHERRY_HOME={other}" if other else "env -u WHERRY_HOME"
    raise Refused(
        f"the machine {directory.name!r} of {other or 'the usual home'} starts at login, and only one of that name can.",
        hint=f"{moved} wherry autostart disable {directory.name}",
    )
