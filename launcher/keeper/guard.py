"""What a keeper looks after while its machine runs: that its folder and its lock are still there."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from launcher import host
from launcher.store import MachineDir

log = logging.getLogger("wherry.keeper.guard")


class Guard:
    """Calls `lost` once when a look finds that the machine's folder was moved or deleted."""

    def __init__(self, directory: MachineDir, lock: int, lost: Callable[[], None]) -> None:
        """`lock`: the descriptor of the keeper's lock."""
        self._directory = directory
        self._folder = os.stat(directory.path)
        self._locks = [lock]  # never closed: a lock goes with the process
        self._lost = lost
        self._told = False

    def look(self) -> None:
        if self._told:
            return
        try:
            if os.path.samestat(os.stat(self._directory.path), self._folder):
                self._keep_lock()
                return
        except FileNotFoundError:
            pass
        except OSError as error:  # a network folder that is away for a moment
            log.warning("looking after %s: %s", self._directory.path, error)
            return
        self._told = True
        self._lost()

    def _keep_lock(self) -> None:
        """A lock file that somebody removed would let a second keeper start."""
        if self._is_ours():
            return
        log.warning("the lock file was removed; making another one")
        # Who looks whether it is taken holds it for a moment: then the next look tries again.
        lock = host.current().lock(self._directory.lock_file, wait=False)
        if lock is not None:
            self._locks.append(lock)

    def _is_ours(self) -> bool:
        """Whether the file at the lock's place is the one that is held last."""
        try:
            return os.path.samestat(os.stat(self._directory.lock_file), os.fstat(self._locks[-1]))
        except FileNotFoundError:
            return False
