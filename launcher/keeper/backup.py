"""A copy of the data disk of a running machine, as it was in one moment in which its file system stood still.

QEMU copies in the background; what the guest writes over meanwhile it copies first (QEMU docs/interop/live-block-operations,
"blockdev-backup"). The guest's writers wait only while the file system is brought to rest and the job is made.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from launcher.disks import explained
from launcher.errors import ConnectionLost, WherryError
from launcher.qemu import blocks
from launcher.ssh.library import broken
from launcher.ssh.transport import Connection, close

if TYPE_CHECKING:
    from paramiko import Channel

log = logging.getLogger("wherry.keeper.backup")

STILL: Final = "exec /usr/lib/wherry/still /var/lib/wherry 20"
_STILL_SECONDS: Final = 30.0  # to write down what is not on the disk yet takes a while
_LOOKS_EVERY: Final = 0.25
_NODE: Final = "backup"

Tell = Callable[[int, int], None]
Rest = Callable[[], contextlib.AbstractContextManager[None]]


def run(monitor: blocks.Monitor, file: Path, rest: Rest, tell: Tell) -> None:
    """Copy the disk into `file`, a blank disk of the same size. What `tell` raises ends it, and the file is incomplete then.

    `rest` holds the file system in the guest still, and raises when it did not until its end.
    """
    image = {"driver": "file", "filename": str(file)}
    added: dict[str, Any] = {"node-name": _NODE, "driver": "qcow2", "file": image}
    job: dict[str, Any] = {"job-id": _NODE, "device": blocks.NODE, "target": _NODE, "sync": "top"}
    job |= {"auto-dismiss": False, "on-target-error": "report"}
    _end(monitor)  # of a keeper that was killed in the middle
    monitor.execute("blockdev-add", **added)
    try:
        with rest():
            monitor.execute("blockdev-backup", **job)
        error = _followed(monitor, tell)
    finally:
        _end(monitor)
    if error:
        raise explained(file, "it cannot be written", error)


def _followed(monitor: blocks.Monitor, tell: Tell) -> str:
    """Until the job has ended; why it failed, empty when it did not."""
    rest = threading.Event()
    while (job := _job(monitor)) is not None:
        done, total = int(job["current-progress"]), int(job["total-progress"])
        tell(min(done, total), total)
        if job["status"] == "concluded":
            return str(job.get("error") or "")
        rest.wait(_LOOKS_EVERY)
    return "its job is gone"


def _end(monitor: blocks.Monitor) -> None:
    """Neither a job nor its file is left in QEMU, whatever it had come to."""
    rest = threading.Event()
    with contextlib.suppress(ConnectionLost):
        while (job := _job(monitor)) is not None:
            with contextlib.suppress(WherryError):
                monitor.execute("job-dismiss" if job["status"] == "concluded" else "job-cancel", id=_NODE)
            rest.wait(_LOOKS_EVERY / 10)
    with contextlib.suppress(WherryError):  # there is none
        gone: dict[str, Any] = {"node-name": _NODE}
        monitor.execute("blockdev-del", **gone)


def _job(monitor: blocks.Monitor) -> dict[str, Any] | None:
    return next((job for job in monitor.execute("query-jobs") if job["id"] == _NODE), None)


@contextlib.contextmanager
def standing_still(connection: Connection) -> Iterator[None]:
    """The guest's file system is clean on its disk and stays so until this ends. It goes on by itself after 20 s, and when
    the connection ends. Raises WherryError when it cannot stand still, or did not for as long as this took."""
    channel = connection.open_session()
    try:
        channel.settimeout(_STILL_SECONDS)
        channel.exec_command(STILL)
        if _line(channel) != "still":
            said = _error(channel)
            raise WherryError(f"the machine's file system cannot stand still{f': {said}' if said else ''}.", hint="wherry stop")
        yield
        channel.sendall(b"\n")
        if _line(channel) != "thawed":
            raise WherryError("the machine's file system stood still for 20 s, which was too short.", hint="Try again.")
    except broken() as error:
        raise ConnectionLost(f"the machine's file system was not brought to rest: {error!r}") from error
    finally:
        close(channel)


def _line(channel: Channel) -> str:
    text = b""
    while not text.endswith(b"\n") and (data := channel.recv(64)):
        text += data
    return text.decode("ascii", "replace").strip()


def _error(channel: Channel) -> str:
    return channel.recv_stderr(1024).decode("utf-8", "replace").strip().removeprefix("wherry: ")
