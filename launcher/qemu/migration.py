"""A guest's memory and devices, out of one QEMU and into another: a stream over a descriptor that QEMU is handed (getfd).

`exec:` would need QEMU to start programs, which its sandbox forbids; `file:` is there from QEMU 8.2 on and cannot be compressed
on the way (mapped-ram, 9.0, neither). QEMU docs/devel/migration, qapi/migration.json.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from launcher.errors import NoProgress, WherryError

_NAME: Final = "memory"
# Bytes per second. QEMU's default of 128 MB/s is meant for networks.
_NO_LIMIT: Final = 1 << 40
_LOOKS_EVERY: Final = 0.02
_OVER: Final = ("completed", "failed", "cancelled")
_ENDS_WITHIN: Final = 60.0  # seconds from the stream's last byte until QEMU says how it ended


class Monitor(Protocol):
    def execute(
        self, command: str, /, *, timeout: float = 30, descriptor: int | None = None, **arguments: Any
    ) -> Any: ...  # fmt: skip


def send(monitor: Monitor, descriptor: int) -> None:
    """Have QEMU write all of the guest to `descriptor`, which is closed here whatever happens. Raises WherryError.

    Whoever reads closes the other end to give it up: the transfer fails, and the guest is as it was. migrate_cancel would wait
    for a write that nobody takes.
    """
    try:
        monitor.execute("migrate-set-parameters", **{"max-bandwidth": _NO_LIMIT})
        monitor.execute("getfd", descriptor=descriptor, fdname=_NAME)
    finally:
        os.close(descriptor)
    monitor.execute("migrate", uri=f"fd:{_NAME}")


def receive(monitor: Monitor, descriptor: int) -> None:
    """Have a QEMU that was started with `-incoming defer` read a guest from `descriptor`, which is closed here.

    The disks are left alone until `cont`: a QEMU that ends before has written nothing. Raises WherryError.
    """
    try:
        monitor.execute("migrate-set-capabilities", capabilities=[{"capability": "late-block-activate", "state": True}])
        monitor.execute("getfd", descriptor=descriptor, fdname=_NAME)
    finally:
        os.close(descriptor)
    monitor.execute("migrate-incoming", uri=f"fd:{_NAME}")


def wait(monitor: Monitor, given_up: Callable[[], bool] = lambda: False) -> None:
    """Until QEMU says that the transfer is complete. Called when the stream's last byte is through, so not for long.

    Raises WherryError when it failed, or when it was `given_up`, ConnectionLost when QEMU ended.
    """
    deadline = time.monotonic() + _ENDS_WITHIN
    while (told := _told(monitor)).get("status") not in _OVER:
        if given_up():
            raise WherryError("it was given up.")
        if time.monotonic() > deadline:
            raise NoProgress(f"QEMU does not end the transfer of the guest's memory ({told.get('status')}).")
        time.sleep(_LOOKS_EVERY)
    if told["status"] != "completed":
        why = str(told.get("error-desc") or told["status"]).rstrip(".")
        raise WherryError(f"QEMU could not transfer the guest's memory: {why}.", hint="wherry logs qemu")


def _told(monitor: Monitor) -> dict[str, Any]:
    return dict(monitor.execute("query-migrate") or {})
