"""A client of the Docker API, wherever it is: on this computer behind a socket, in the machine behind a channel."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from launcher import host
from launcher.host.streams import Stream
from launcher.ssh.library import broken
from launcher.ssh.transport import PACKET, close

if TYPE_CHECKING:
    from paramiko import Channel


class Client(Protocol):
    """As much of a socket as the relay asks for; whatever fails is an OSError."""

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def close(self) -> None: ...
    def wait_hangup(self) -> bool:
        """After the end of its input: wait until it is gone altogether. False at once where that cannot be told."""


class SocketClient:
    """One that connected here."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.recv = stream.recv
        self.sendall = stream.sendall
        self.shutdown = stream.shutdown
        self.settimeout = stream.settimeout
        self.close = stream.close

    def wait_hangup(self) -> bool:
        return host.current().wait_hangup(self._stream)


class ChannelClient:
    """One in the machine. `first`: what it said before it was handed on."""

    def __init__(self, channel: Channel, first: bytes = b"") -> None:
        self._channel = channel
        self._first = first

    def recv(self, size: int, /) -> bytes:
        if self._first:
            data, self._first = self._first[:size], self._first[size:]
            return data
        with _as_os_error():
            return self._channel.recv(size)

    def sendall(self, data: bytes, /) -> None:
        with _as_os_error():
            # In pieces: sendall copies the whole rest after every packet.
            for start in range(0, len(data), PACKET):
                self._channel.sendall(data[start : start + PACKET])

    def shutdown(self, how: int, /) -> None:
        if how == socket.SHUT_RDWR:
            # paramiko's own shutdown leaves a reader asleep until the other side says something.
            close(self._channel)
            return
        with _as_os_error():
            self._channel.shutdown(how)

    def settimeout(self, seconds: float | None, /) -> None:
        self._channel.settimeout(seconds)

    def close(self) -> None:
        close(self._channel)

    def wait_hangup(self) -> bool:
        return False  # sshd tells the end of its output, not that it takes no more


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except broken() as error:
        raise ConnectionAbortedError(str(error)) from error
