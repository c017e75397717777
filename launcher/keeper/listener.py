"""Where clients of the keeper connect: on this system a unix socket that only its owner can open."""

from __future__ import annotations

import contextlib
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
from launcher.store import LONGEST_SOCKET

log = logging.getLogger("wherry.keeper.listener")

_BACKLOG: Final = 1024  # many at once are normal: compose, IDEs, scripts
_NO_ROOM_SECONDS: Final = 0.2


def listen(path: Path) -> socket.socket:
    """A socket at that place, in place of what was there. Raises WherryError when its path is too long for the system."""
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        raise WherryError(f"{path} is too long for a socket.", hint="Set XDG_RUNTIME_DIR to a shorter folder.")
    host.current().make_private(path.parent)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    path.chmod(0o600)
    listening.listen(_BACKLOG)
    return listening


class UnixListener:
    """Hands every connection to `serve` in a thread of its own. Another system's pipe needs the same calls."""

    def __init__(
        self, path: Path, serve: Callable[[socket.socket], None], name: str, made: Sequence[socket.socket] = ()
    ) -> None:
        """`name` is that of the threads. `made`: a socket that listens at the path already, and connections made to it."""
        self._path = path
        self._given = made
        self._serve = serve
        self._name = name
        self._listening: socket.socket | None = None
        self._closed = False
        self._made: os.stat_result | None = None

    def start(self) -> None:
        """Raises WherryError when the socket's path is too long for the system."""
        self._listening, *clients = self._given or [listen(self._path)]
        self._made = self._path.stat()
        for client in clients:
            threading.Thread(target=self._serve, args=(client,), name=f"{self._name}-up", daemon=True).start()
        threading.Thread(target=self._accept, args=(self._listening,), name=self._name, daemon=True).start()

    @property
    def in_place(self) -> bool:
        """Whether who opens the path comes to us: a machine whose folder was moved may have a new keeper at this place."""
        with contextlib.suppress(OSError):
            return self._made is not None and os.path.samestat(self._path.stat(), self._made)
        return False

    def close(self) -> None:
        """Nobody can connect any more; connections that are there go on."""
        self._closed = True
        if self.in_place:
            with contextlib.suppress(OSError):
                self._path.unlink()
        if self._listening is not None:
            # Closing alone does not wake the thread that accepts.
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                stream, _ = listening.accept()
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
