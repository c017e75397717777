"""The connection on which channels are dialled, as those see it who wait for one."""

from __future__ import annotations

import threading
from collections.abc import Callable

from launcher.ssh.transport import Connection


class Way:
    """Safe to use from many threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._connection: Connection | None = None

    def up(self, connection: Connection) -> None:
        """From now on this one."""
        with self._changed:
            self._connection = connection
            self._changed.notify_all()

    def down(self) -> None:
        """None until the next one."""
        with self._changed:
            self._connection = None
            self._changed.notify_all()

    def wake(self) -> None:
        """Who waits looks whether it still should."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, over: Callable[[], bool]) -> Connection | None:
        """The connection, once there is one; None when it is `over`."""
        with self._changed:
            self._changed.wait_for(lambda: over() or (self._connection is not None and self._connection.alive))
            return None if over() else self._connection

    def pause(self, seconds: float, over: Callable[[], bool]) -> None:
        """So long, or until there is another connection or it is `over`."""
        with self._changed:
            connection = self._connection
            self._changed.wait_for(lambda: over() or self._connection is not connection, seconds)
