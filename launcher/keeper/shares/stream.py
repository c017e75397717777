"""A channel as the stream that a session reads and writes; whatever fails is an OSError."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.ssh.library import broken
from launcher.ssh.transport import PACKET, close

if TYPE_CHECKING:
    from paramiko import Channel


class ChannelStream:
    """One reader, and writers that take turns by themselves."""

    heard = 0  # by all of them: how often something came

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def recv(self, size: int, /) -> bytes:
        """Up to so many bytes; empty at the end."""
        try:
            data = self._channel.recv(size)
            ChannelStream.heard += 1
            return data
        except broken() as error:
            raise ConnectionAbortedError(str(error)) from error

    def sendall(self, data: bytes | bytearray | memoryview, /) -> None:
        view = memoryview(data)
        sent = 0
        try:
            # Not paramiko's own sendall, which copies the whole rest after every packet.
            while sent < len(view):
                count = self._channel.send(bytes(view[sent : sent + PACKET]))
                if count == 0:
                    raise ConnectionAbortedError("the channel is closed")
                sent += count
        except broken() as error:
            raise ConnectionAbortedError(str(error)) from error

    def close(self) -> None:
        """Wakes who reads."""
        close(self._channel)
