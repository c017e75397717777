"""The keeper's one warm SSH connection: made when it is first asked for, made anew when it has ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper.link")


class Link:
    """Safe to use from many threads."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """`connect` raises WherryError when the machine cannot be reached."""
        self._connect = connect
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._subscribers: list[Callable[[Connection], None]] = []

    def subscribe(self, on_up: Callable[[Connection], None]) -> None:
        """Have `on_up` called, in a thread of its own, with each new connection: the first one and every one after."""
        self._subscribers.append(on_up)

    def get(self) -> Connection:
        """The connection; a new one when the old has ended. Raises WherryError."""
        with self._lock:
            if self._connection is not None and self._connection.alive:
                return self._connection
            if self._connection is not None:
                log.warning("the SSH connection ended; connecting again")
                self._connection.close()
                self._connection = None
            self._connection = connection = self._connect()
        for on_up in self._subscribers:
            threading.Thread(target=_tell, args=(on_up, connection), name="link-up", daemon=True).start()
        return connection

    def drop(self) -> None:
        """End the connection; the next `get` makes another one."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _tell(on_up: Callable[[Connection], None], connection: Connection) -> None:
    try:
        on_up(connection)
    except Exception:  # what failed for one part must not keep the connection from the others
        log.exception("after connecting")
