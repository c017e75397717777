"""The guest's part in being saved and going on: provisioning/rest.sh, which travels with the call, so any image will do."""

from __future__ import annotations

import logging
import os
from typing import Final

from launcher import guestfiles
from launcher.errors import WherryError
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper.rest")

_WITHIN: Final = 120.0  # seconds: everything that was written is synced
_ENTROPY: Final = 64  # bytes


def quiet(connection: Connection, identity: str) -> int:
    """Have containers stand still, what they wrote on the disk, and memory given back that only speeds things up.

    How many bytes of memory are in use then, about.
    """
    said = _call(connection, ["quiet", identity])
    return int(said) << 10 if said.strip().isdigit() else 0


def wake(connection: Connection, identity: str) -> None:
    """Have the random pool stirred, and let containers go on. The clock is right by now."""
    _call(connection, ["wake", identity], os.urandom(_ENTROPY))


def script() -> str:
    return (guestfiles.provisioning() / "rest.sh").read_text(encoding="utf-8")


def _call(connection: Connection, words: list[str], stdin: bytes = b"") -> str:
    code, told, said = connection.run(["sh", "-c", script(), "rest", *words], stdin=stdin, timeout=_WITHIN)
    if code != 0:
        why = said.decode(errors="replace").strip().rstrip(".")
        raise WherryError(f"the guest cannot {words[0]}: {why}.", hint="wherry logs serial")
    return told.decode(errors="replace")
