"""A QEMU whose keeper died, where its channels died too (pipes, on Windows): nobody can take it over, so it is ended gently.

The guest is asked to power off over SSH, the one way in that is left, and gets its time as long as it answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from launcher.errors import WherryError
from launcher.keeper.launch import Process
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper")

SILENT: Final = 30.0  # seconds without an answer before QEMU is ended by force
_EVERY: Final = 1.0
_POWER_OFF: Final = ("poweroff",)
_ASK_SECONDS: Final = 10.0


def end(process: Process, connect: Callable[[], Connection]) -> bool:
    """Returns when QEMU is gone: True when the guest powered off, False when it gave no answer for 30 s and was ended.

    `connect` raises WherryError when the guest is not reached.
    """
    heard, told = time.monotonic(), False
    connection: Connection | None = None
    try:
        while process.wait(_EVERY) is None:
            if time.monotonic() - heard > SILENT:
                log.warning("the guest gave no answer for %g s; ending QEMU", SILENT)
                process.kill()
                process.wait()
                return False
            with suppress(WherryError):
                if connection is None or not connection.alive:
                    connection = connect()
                if connection.ping(_EVERY):
                    heard = time.monotonic()
                if not told:
                    told = _ask(connection)
                    heard = time.monotonic()
        return True
    finally:
        if connection is not None:
            connection.close()


def _ask(connection: Connection) -> bool:
    code, _, words = connection.run(list(_POWER_OFF), timeout=_ASK_SECONDS)
    if code != 0:
        log.warning("poweroff: %s", words.decode(errors="replace").strip())
    return code == 0
