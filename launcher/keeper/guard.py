"""What a keeper looks after while its machine runs: that its folder and its lock are still there."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Final

from launcher import host
from launcher.store import MachineDir

log = logging.getLogger("wherry.keeper.guard")

_EVERY: Final = 3.0  # seconds


class Guard:
    """A thread that calls `lost` once when the machine's folder was moved or deleted."""

    def __init__(self, directory: MachineDir, lock: int, lost: Callable[[], None]) -> None:
        """`lock`: the descriptor of the keeper's lock."""
        self._directory = directory
        self._folder = os.stat(directory.path)
        self._locks = [lock]  # never closed: a lock goes with the process
        self._lost = lost
        self._over = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="guard", daemon=True).start()

    def stop(self) -> None:
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(_EVERY):
            try:
                if not os.path.samestat(os.stat(self._directory.path), self._folder):
                    break
                self._keep_lock()
            except FileNotFoundError:
                break
            except OSError as error:  # a network folder that is away for a moment
                log.warning("looking after %s: %s", self._directory.path, error)
        if not self._over.is_set():
            self._lost()

    def _keep_lock(self) -> None:
        """A lock file that somebody removed would let a second keeper start."""
        if not self._directory.lock_file.exists():
            log.warning("the lock file was removed; making another one")
            lock = host.current().lock(self._directory.lock_file, wait=False)
            if lock is not None:
                self._locks.append(lock)
