"""Unix sockets: Linux, macOS."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from launcher.host._posix import make_private
from launcher.host.streams import Listening, Stream


class UnixSockets:
    """The endpoints of this system."""

    def path(self, folder: Path, name: str, kind: str) -> Path:  # noqa: ARG002  the folder is the machine's own
        return folder / f"{kind}.sock"

    def address(self, path: Path) -> str:
        return f"unix://{path}"

    def listen(
        self,
        path: Path,
        backlog: int,
        made: socket.socket | None = None,
        *,
        beside: bool = False,  # noqa: ARG002
    ) -> Listening:
        return ListeningSocket(path, made or bound(path, backlog))

    def connect(self, path: Path, seconds: float | None) -> Stream:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            stream.settimeout(seconds)
            stream.connect(str(path))
            stream.settimeout(None)
        except BaseException:
            stream.close()
            raise
        return stream

    def left(self, path: Path) -> bool:
        return os.path.lexists(path)


def bound(path: Path, backlog: int) -> socket.socket:
    """One that listens there, in place of what was there, in a folder that only its owner can open."""
    make_private(path.parent)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    path.chmod(0o600)
    listening.listen(backlog)
    return listening


class ListeningSocket:
    """A socket that listens at its path."""

    def __init__(self, path: Path, listening: socket.socket) -> None:
        self._path, self._socket = path, listening
        self._made = path.stat()

    @property
    def in_place(self) -> bool:
        """Whether who opens the path comes to us: a machine whose folder was moved may have a new keeper at this place."""
        with contextlib.suppress(OSError):
            return os.path.samestat(self._path.stat(), self._made)
        return False

    def accept(self) -> Stream:
        return self._socket.accept()[0]

    def close(self) -> None:
        if self.in_place:
            with contextlib.suppress(OSError):
                self._path.unlink()
        # Closing alone does not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
