"""The guest's part in being saved and going on: provisioning/rest.sh, which travels with the call, so any image will do."""

from __future__ import annotations

import logging
import os
import shlex
import time
from typing import Final

from launcher import guestfiles
from launcher.errors import WherryError
from launcher.keeper import clock
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper.rest")

_WITHIN: Final = 120.0  # seconds: everything that was written is synced
_ENTROPY: Final = 64  # bytes


def quiet(connection: Connection, identity: str) -> int:
    """Have containers stand still, and what they wrote on the disk. How many bytes of memory are in use, about.

    Nothing is given back: what is freed now keeps its content until the guest has reported it. Measured under emulation,
    after 700 MB of page cache were dropped: at once as much was to save as before (1,155 MB), 930 MB after 2.5 s, 526 MB
    after 6 s. To inflate the balloon takes 8 s for a GB, to fill a GB of free memory with zeros 19 s.
    """
    said = _call(connection, ["quiet", identity])
    return int(said) << 10 if said.strip().isdigit() else 0


def wake(connection: Connection, identity: str, behind: float | None = None) -> bool:
    """Have the random pool stirred, and let containers go on. The clock is right by now, or else `behind` by so many seconds:
    then it is set first. Whether it was seen to be right."""
    words = ["wake", identity] if behind is None else ["wake", identity, f"{behind * 1e9:.0f}"]
    before = time.time()
    told = _call(connection, words, os.urandom(_ENTROPY).hex().encode() + b"\n").split()
    after = time.time()
    if len(told) != 2 or told[0] != "ok" or not told[1].isdigit():
        return False
    now = int(told[1]) / 1e9
    return max(before - now, now - after) < clock.STEP


def script() -> str:
    return (guestfiles.provisioning() / "rest.sh").read_text(encoding="utf-8")


def _call(connection: Connection, words: list[str], stdin: bytes = b"") -> str:
    line = f"set -- {shlex.join(words)}\n{script()}"
    code, told, said = connection.run_line(line, stdin=stdin, timeout=_WITHIN)
    if code != 0:
        why = said.decode(errors="replace").strip().rstrip(".")
        raise WherryError(f"the guest cannot {words[0]}: {why}.", hint="wherry logs serial")
    return told.decode(errors="replace")
