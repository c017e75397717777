"""One share in the process that serves: a thread that dials its socket in the guest, and serves what comes until it ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from launcher import host
from launcher.errors import ConnectionLost
from launcher.keeper.shares.orders import Orders, State, Told, Wanted
from launcher.keeper.shares.stream import ChannelStream
from launcher.keeper.shares.way import Way
from launcher.ssh.transport import Connection, close

if TYPE_CHECKING:
    from paramiko import Channel

log = logging.getLogger("wherry.shares")

SOCKETS: Final = "/run/wherry/shares"
# Before the next try: at once after a session that lasted; a guest that still mounts has no socket yet, an older one never.
_PAUSES: Final = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
_LASTED: Final = 1.0


class Served(Protocol):
    """A share that is ready to be served: `assembly.assemble`. `serve` is called once at a time, the others at any time."""

    def serve(self, stream: ChannelStream, /) -> None:
        """Until the stream ends."""

    def change(self, share: Wanted, orders: Orders, /) -> None:
        """Other rules, also for what is under way."""

    def close(self) -> None: ...


Assemble = Callable[[Wanted, Orders], Served]


class Station:
    """`tell` is called after each change of what `told` says. The share's folder may be missing at first, and come later."""

    def __init__(self, share: Wanted, orders: Orders, way: Way, assemble: Assemble, tell: Callable[[], None]) -> None:
        self._share = share
        self._orders = orders
        self._way = way
        self._assemble = assemble
        self._tell = tell
        self._lock = threading.Lock()  # for all below
        self._served: Served | None = None
        self._channel: Channel | None = None
        self._over = False
        self._stale = False  # what is served has other rules than it should
        self._told = Told("waiting")
        self._thread = threading.Thread(target=self._run, name=f"share-{share.id}", daemon=True)
        self._thread.start()

    @property
    def share(self) -> Wanted:
        return self._share

    @property
    def told(self) -> Told:
        with self._lock:
            return self._told

    def change(self, share: Wanted, orders: Orders) -> None:
        """The same folder with other rules; a session goes on. One that cannot have them ends. From one thread at a time."""
        with self._lock:
            self._share, self._orders = share, orders
            served = self._served
        if served is None:
            return
        try:
            served.change(share, orders)  # not under the lock: a file system may take its time
        except OSError as error:
            log.warning("%s: %s", share.id, error)
            with self._lock:
                self._stale, channel = True, self._channel
            if channel is not None:
                close(channel)

    def close(self, seconds: float) -> None:
        """It is served no more; what is under way gets so long to end."""
        with self._lock:
            self._over = True
            channel = self._channel
        self._way.wake()
        if channel is not None:
            close(channel)
        self._thread.join(seconds)

    def _is_over(self) -> bool:
        return self._over

    def _run(self) -> None:
        tries = 0
        try:
            while (connection := self._way.wait(self._is_over)) is not None:
                lasted = self._try(connection)
                tries = 0 if lasted >= _LASTED else tries + 1
                self._way.pause(_PAUSES[min(tries, len(_PAUSES) - 1)], self._is_over)
        finally:
            if self._served is not None:
                self._served.close()

    def _try(self, connection: Connection) -> float:
        """Serve on one channel to its end: how many seconds that took."""
        served = self._ready()
        if served is None:
            return 0.0
        try:
            channel = connection.open_streamlocal(f"{SOCKETS}/{self._share.id}")
        except ConnectionLost as error:
            log.debug("%s: %s", self._share.id, error.message)
            self._say("waiting", "it is not mounted in the machine" if connection.alive else "")
            return 0.0
        began = time.monotonic()
        try:
            with self._lock:
                if self._over:
                    return 0.0
                self._channel = channel
            self._say("served")
            served.serve(ChannelStream(channel))
        except Exception:  # one session's failure is not the share's
            log.exception("%s: a session failed", self._share.id)
        finally:
            close(channel)
            with self._lock:
                self._channel = None
        self._say("waiting")
        return time.monotonic() - began

    def _ready(self) -> Served | None:
        """None when this computer refuses it, which is told."""
        with self._lock:
            served, stale = self._served, self._stale
            share, orders = self._share, self._orders
            if stale:
                self._served, self._stale = None, False
        if served is not None and not stale:
            return served
        if served is not None:
            served.close()
        try:
            return self._assembled(share, orders)
        except OSError as error:
            kept = host.current().withheld(share.path)
            self._say("failed", "; ".join(kept) if kept else f"{share.path}: {error.strerror or error}")
            return None

    def _assembled(self, share: Wanted, orders: Orders) -> Served:
        served = self._assemble(share, orders)
        try:
            while True:
                with self._lock:
                    if orders is self._orders:
                        self._served = served
                        return served
                    share, orders = self._share, self._orders
                served.change(share, orders)
        except BaseException:
            served.close()
            raise

    def _say(self, state: State, detail: str = "") -> None:
        with self._lock:
            before = self._told
            self._told = before._replace(state=state, detail=detail)
            changed = self._told != before
        if changed:
            log.info("%s: %s %s", self._share.id, state, detail)
            self._tell()
