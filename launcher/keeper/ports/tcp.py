"""Connections of one published TCP port: each end of the pair passes on what it gets, its end, or its breaking."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from launcher.errors import WherryError
from launcher.keeper.ports.inner import Inner
from launcher.keeper.ports.pace import Pace
from launcher.keeper.ports.sockets import BACKLOG, Bound

log = logging.getLogger("wherry.ports")

_HELD: Final = 256 << 10  # bytes that wait for one who does not read; then the other side is not read either
_ACCEPTED_AT_ONCE: Final = 16  # without a descriptor left asyncio tries, logs and tries later as often
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing means RST
_DRAIN_SECONDS: Final = 30.0  # for what a container that has ended said last


class TcpPort:
    """Serves its listening sockets in the forwarder's loop, from `open` to `close`."""

    def __init__(self, inner: Inner, sockets: list[Bound], held: Callable[[], bool]) -> None:
        self._inner = inner
        self._held = held
        self._sockets = sockets
        self._servers: list[asyncio.Server] = []
        self._ends: set[_End] = set()
        self._joins: set[asyncio.Task[None]] = set()
        self._pace = Pace()
        self.closed = False

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        for bound in self._sockets:
            made = partial(_Outer, self, bound.only_local)
            self._servers.append(await loop.create_server(made, sock=bound.socket, backlog=_ACCEPTED_AT_ONCE))
            bound.socket.listen(BACKLOG)

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        # asyncio loses, and leaves open, what it has accepted for a server that was closed before its transport was made.
        loop = asyncio.get_running_loop()
        for bound in self._sockets:
            with contextlib.suppress(NotImplementedError):  # Windows' loop has no readers, and no such gap
                loop.remove_reader(bound.socket)
        for _ in range(3):
            await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        for bound in self._sockets:
            bound.socket.close()
        self._inner.discard()
        if self._ends:
            asyncio.get_running_loop().call_later(_DRAIN_SECONDS, self.cut)

    @property
    def connections(self) -> int:
        return len(self._ends)

    def cut(self) -> None:
        """End connections that have not ended by themselves."""
        for end in list(self._ends):
            end.reset()

    @property
    def refuses(self) -> bool:
        return self.closed or self._held()

    def begin(self, outer: _End) -> None:
        self._ends.add(outer)
        task = asyncio.get_running_loop().create_task(self._join(outer))
        self._joins.add(task)
        task.add_done_callback(self._joins.discard)

    def answered(self, outer: _End) -> None:
        self._pace.answered(outer)

    def gone(self, outer: _End) -> None:
        self._pace.left(outer)
        self._ends.discard(outer)

    async def _join(self, outer: _End) -> None:
        await self._pace.enter(outer)
        if outer not in self._ends:
            self._pace.left(outer)
            return
        try:
            stream = await self._inner.connect()
        except (WherryError, OSError) as error:  # OSError: this computer has no socket left
            log.warning("a connection is cut: %s", error)
            outer.reset()
            return
        if outer not in self._ends:
            stream.close()
            return
        await asyncio.get_running_loop().create_connection(lambda: _Inner(outer, self), sock=stream)


class _End(asyncio.Protocol):
    """One end of a pair."""

    def __init__(self, peer: _End | None) -> None:
        self._peer = peer
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_HELD)
        peer = self._peer
        if peer is None:
            self._transport.pause_reading()
        elif peer.closed or peer._transport is None:
            self.reset()
        else:
            peer._peer = self
            peer._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._peer is not None and self._peer._transport is not None:
            self._peer._transport.write(data)

    def eof_received(self) -> bool:
        """The other side may still speak: the transport stays open."""
        self._ended = True
        peer = self._peer
        if peer is not None and peer._transport is not None and not peer.closed:
            with contextlib.suppress(OSError, RuntimeError):
                peer._transport.write_eof()
            if peer._ended:
                self._finish()
                peer._finish()
        return True

    def pause_writing(self) -> None:
        if self._peer is not None and self._peer._transport is not None:
            self._peer._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._peer is not None and self._peer._transport is not None:
            self._peer._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        peer = self._peer
        if peer is not None and not peer.closed:
            if exc is not None or not self._ended:
                peer.reset()
            else:
                peer._finish()

    def reset(self) -> None:
        """Break it off, which the other side sees as such."""
        if self._transport is None or self.closed:
            return
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def _finish(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Inner(_End):
    """The end in the guest."""

    def __init__(self, outer: _End, port: TcpPort) -> None:
        super().__init__(outer)
        self._outer = outer
        self._port = port
        self._silent = True

    def data_received(self, data: bytes) -> None:
        if self._silent:
            self._silent = False
            self._port.answered(self._outer)
        super().data_received(data)


class _Outer(_End):
    """The end of who connected to this computer's port."""

    def __init__(self, port: TcpPort, only_local: bool) -> None:
        super().__init__(None)
        self._port = port
        self._only_local = only_local

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        # One that is gone already has no address: where it came from nobody can tell.
        foreign = not peer or not ipaddress.ip_address(peer[0].partition("%")[0]).is_loopback
        if self._port.refuses or (self._only_local and foreign):
            self.reset()
        else:
            self._port.begin(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._port.gone(self)
