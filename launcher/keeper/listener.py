"""Where clients of the keeper connect: a unix socket, or a named pipe, that only its owner can open."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from launcher import host
from launcher.errors import WherryError
from launcher.host.streams import Listening, Stream
from launcher.store import LONGEST_SOCKET

log = logging.getLogger("wherry.keeper.listener")

_BACKLOG: Final = 1024  # many at once are normal: compose, IDEs, scripts
_NO_ROOM_SECONDS: Final = 0.2


def bound(path: Path) -> socket.socket:
    """A socket that listens at that place, in place of what was there, to be handed on: where endpoints are sockets.

    Raises WherryError when its path is too long for the system.
    """
    from launcher.host import sockets

    _check(path)
    return sockets.bound(path, _BACKLOG)


def _check(path: Path) -> None:
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        raise WherryError(f"{path} is too long for a socket.", hint="Set XDG_RUNTIME_DIR to a shorter folder.")


class Listener:
    """Hands every connection to `serve` in a thread of its own."""

    def __init__(
        self,
        path: Path,
        serve: Callable[[Stream], None],
        name: str,
        made: Sequence[socket.socket] = (),
        *,
        beside: bool = False,
    ) -> None:
        """`name` is that of the threads. `made`: a socket that listens at the path already, and connections made to it.
        `beside`: as in host.streams."""
        self._path = path
        self._beside = beside
        self._given = made
        self._serve = serve
        self._name = name
        self._listening: Listening | None = None
        self._closed = False

    def start(self) -> None:
        """Raises WherryError when the socket's path is too long for the system."""
        _check(self._path)
        made = self._given[0] if self._given else None
        self._listening = host.current().endpoints().listen(self._path, _BACKLOG, made, beside=self._beside)
        for client in self._given[1:]:
            threading.Thread(target=self._serve, args=(client,), name=f"{self._name}-up", daemon=True).start()
        threading.Thread(target=self._accept, args=(self._listening,), name=self._name, daemon=True).start()

    @property
    def in_place(self) -> bool:
        """Whether who opens the path comes to us: a machine whose folder was moved may have a new keeper at this place."""
        return self._listening is not None and self._listening.in_place

    def close(self) -> None:
        """Nobody can connect any more; connections that are there go on."""
        self._closed = True
        if self._listening is not None:
            self._listening.close()

    def _accept(self, listening: Listening) -> None:
        while True:
            try:
                stream = listening.accept()
            except OSError as error:
                if self._closed:
                    return
                self._no_room(error)
                continue
            try:
                threading.Thread(target=self._serve, args=(stream,), name=f"{self._name}-up", daemon=True).start()
            except RuntimeError as error:  # no thread can be started
                stream.close()
                self._no_room(error)

    def _no_room(self, error: Exception) -> None:
        """Out of descriptors or threads, most likely: they come back when connections end."""
        log.warning("a connection cannot be accepted: %s", error)
        time.sleep(_NO_ROOM_SECONDS)
