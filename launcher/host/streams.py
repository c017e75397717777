"""Where programs of one user meet on one computer: what unix sockets and named pipes have in common."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Protocol


class Stream(Protocol):
    """A connection, as a socket has it. Whatever fails is an OSError."""

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def close(self) -> None: ...


class Listening(Protocol):
    """A place where others connect."""

    @property
    def in_place(self) -> bool:
        """Whether who connects there comes to us."""

    def accept(self) -> Stream:
        """The next connection. Raises OSError, and after `close` always."""

    def close(self) -> None:
        """Nobody can connect any more, who accepts hears of it; connections that are there go on."""


class Endpoints(Protocol):
    """What differs between the systems about such places."""

    def path(self, folder: Path, name: str, kind: str) -> Path:
        """Where the machine `name`, whose own folder for such things `folder` is, has the endpoint of that kind."""

    def address(self, path: Path) -> str:
        """As docker's clients write it."""

    def listen(self, path: Path, backlog: int, made: socket.socket | None = None, *, beside: bool = False) -> Listening:
        """There for this user alone when it returns. `made`: what listens there already, where endpoints are sockets. `beside`:
        where they are pipes, another program of this user may listen there too. Raises OSError, Refused."""

    def connect(self, path: Path, seconds: float | None) -> Stream:
        """To whoever of this user listens there. Raises FileNotFoundError or ConnectionError when nobody does, OSError."""

    def left(self, path: Path) -> bool:
        """Whether something is there, which may be what a killed program left."""
