"""What is done with the data disk of a running machine: made larger, trimmed. QEMU, the guest and the disk's file have a part
each, and what is answered was seen at the far end of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from launcher import diskcopy, disks
from launcher.errors import ConnectionLost, NotRunning, Usage, WherryError
from launcher.keeper import backup
from launcher.qemu import blocks
from launcher.ssh.transport import Connection
from launcher.store import MachineDir

if TYPE_CHECKING:
    from launcher.qemu.qmp import Qmp

log = logging.getLogger("wherry.keeper.storage")

GROW: Final = "/usr/lib/wherry/grow"
TRIM: Final = "/usr/lib/wherry/trim"
VITALS: Final = "/usr/lib/wherry/vitals"
PLACE: Final = "/var/lib/wherry"
_INFO_SECONDS: Final = 10.0
_TRIM_SECONDS: Final = 600.0
_GROW_SECONDS: Final = 600.0  # resize2fs writes a table for each 128 MB that come, 4 TB are a minute under emulation
_MISSING: Final = 127

Tell = Callable[[int, int], None]  # done and total, bytes


class Keeper(Protocol):
    """What is used of a supervisor."""

    @property
    def directory(self) -> MachineDir: ...
    def monitor(self) -> Qmp | None: ...
    def connection(self) -> Connection: ...


class Storage:
    """The verbs of `disk` for a machine that is ready."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._busy = threading.Lock()

    def do(self, request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        """One request of the control socket; one at a time. Raises WherryError."""
        if not self._busy.acquire(blocking=False):
            raise WherryError("another command works on the machine's disk.", hint="Try again when it is done.")
        try:
            match request:
                case {"action": "info"}:
                    return self.info()
                case {"action": "grow", "size": int(size)}:
                    return self.grow(size)
                case {"action": "reclaim"}:
                    return self.reclaim()
                case {"action": "backup", "file": str(file)}:
                    return self.backup(Path(file), tell)
                case _:
                    raise Usage(f"the keeper does not know disk {request.get('action')!r}.")
        finally:
            self._busy.release()

    def info(self) -> dict[str, Any]:
        """Bytes of the file system in the disk, and how many of them are free."""
        said = self._run([VITALS], _INFO_SECONDS, b"d\n")
        try:
            total, free = map(int, said.split())
        except ValueError as error:
            raise WherryError(f"the machine says of its disk: {said.strip()!r}.") from error
        return {"total": total, "free": free}

    def grow(self, wanted: int) -> dict[str, Any]:
        """The disk, and the file system in it. A size that the disk has already is what an earlier try came to."""
        monitor = self._monitor()
        now = blocks.size(monitor)
        if wanted != now:
            disks.check_larger(now, wanted)
            blocks.resize(monitor, wanted)
            log.info("the data disk: %d bytes, %d before", wanted, now)
        return {"size": wanted, "total": int(self._run([GROW, str(wanted)], _GROW_SECONDS).split()[0])}

    def reclaim(self) -> dict[str, Any]:
        """Have the guest tell what it does not use, and look at what that gave back."""
        disk = self._keeper.directory.data_disk
        before = diskcopy.size_of(disk)
        trimmed = int(self._run([TRIM, PLACE], _TRIM_SECONDS))
        after = diskcopy.size_of(disk)
        log.info("trimmed: %d bytes are unused, the disk's file takes %d, before %d", trimmed, after, before)
        return {"before": before, "after": after, "trimmed": trimmed}

    def backup(self, file: Path, tell: Tell) -> dict[str, Any]:
        """Copy the disk into a blank one that who asked has made. When that one is gone, so is the copy."""
        monitor, connection = self._monitor(), self._keeper.connection()
        try:
            backup.run(monitor, file, lambda: backup.standing_still(connection), tell)
        except OSError as error:
            file.unlink(missing_ok=True)
            raise ConnectionLost("nobody waits for the backup any more.") from error
        log.info("the data disk was copied")
        return {}

    def _run(self, argv: list[str], seconds: float, stdin: bytes = b"") -> str:
        code, out, words = self._keeper.connection().run(argv, stdin=stdin, timeout=seconds)
        if code == _MISSING:
            raise WherryError("the machine's ISO is too old for this.", hint=f"wherry upgrade {self._keeper.directory.name}")
        if code != 0:
            said = words.decode(errors="replace").strip().removeprefix("wherry: ")
            said = said or f"{argv[0]} ended with exit code {code}"
            raise WherryError(f"the machine says: {said}.", hint="wherry logs serial")
        return out.decode("ascii", "replace")

    def _monitor(self) -> Qmp:
        monitor = self._keeper.monitor()
        if monitor is None:
            raise NotRunning(f"machine {self._keeper.directory.name!r} is not running.", hint="wherry up")
        return monitor
