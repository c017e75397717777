"""Datagrams of one published UDP port: each peer has a socket of its own towards the guest, so that answers find their way."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import time
from collections import OrderedDict
from functools import partial
from typing import Any, Final, cast

from launcher.errors import WherryError
from launcher.keeper.ports.inner import Inner
from launcher.keeper.ports.rules import LOOPBACK, Rule
from launcher.keeper.ports.sockets import Bound

log = logging.getLogger("wherry.ports")

_QUIET_SECONDS: Final = 90.0  # docker's own proxy forgets a peer after as long
_MOST_PEERS: Final = 512  # the one that was quiet longest gives way
_MOST_WAITING: Final = 64  # datagrams of one peer while its way is made

Address = tuple[Any, ...]


class UdpPort:
    """Serves its sockets in the forwarder's loop, from `open` to `close`."""

    def __init__(self, inner: Inner, sockets: list[Bound]) -> None:
        self._inner = inner
        self._sockets = sockets
        self._transports: list[asyncio.DatagramTransport] = []
        self._flows: OrderedDict[tuple[int, Address], _Flow] = OrderedDict()
        self._dropping = False
        self.closed = False

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        for number, bound in enumerate(self._sockets):
            transport, _ = await loop.create_datagram_endpoint(partial(_Outer, self, number, bound), sock=bound.socket)
            self._transports.append(transport)

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.cut()
        for transport in self._transports:
            transport.abort()
        # abort() closes the sockets in the loop's next round; who asked may bind them again at once.
        for bound in self._sockets:
            with contextlib.suppress(OSError):
                bound.socket.close()
        self._inner.discard()

    def cut(self) -> None:
        for flow in list(self._flows.values()):
            flow.stop()

    @property
    def connections(self) -> int:
        return len(self._flows)

    def received(self, number: int, data: bytes, peer: Address) -> None:
        key = (number, peer)
        flow = self._flows.get(key)
        if flow is not None and flow.stale:
            flow.stop()
            flow = None
        if flow is None:
            if len(self._flows) >= _MOST_PEERS:
                next(iter(self._flows.values())).stop()
            flow = self._flows[key] = _Flow(self, key)
        self._flows.move_to_end(key)
        flow.send(data)

    def answer(self, key: tuple[int, Address], data: bytes) -> None:
        self._dropping = False
        if key in self._flows:  # what comes between a flow's stop and its end is nobody's
            self._flows.move_to_end(key)
            self._transports[key[0]].sendto(data, key[1])

    def forget(self, key: tuple[int, Address], flow: _Flow) -> None:
        if self._flows.get(key) is flow:  # not the next one of the same peer
            del self._flows[key]

    def dropped(self, error: Exception) -> None:
        """There is no way into the guest; said once, however many come."""
        log.log(logging.DEBUG if self._dropping else logging.WARNING, "datagrams are dropped: %s", error)
        self._dropping = True

    @property
    def inner(self) -> Inner:
        return self._inner


class _Flow(asyncio.DatagramProtocol):
    """One peer."""

    def __init__(self, port: UdpPort, key: tuple[int, Address]) -> None:
        self._port = port
        self._key = key
        self._waiting: list[bytes] = []
        self._transport: asyncio.DatagramTransport | None = None
        self._rule: Rule | None = None
        self._last = time.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._live())

    @property
    def stale(self) -> bool:
        """Whether its way into the guest has ended, with QEMU or otherwise."""
        return self._rule is not None and not self._port.inner.stands(self._rule)

    def send(self, data: bytes) -> None:
        self._last = time.monotonic()
        if self._transport is not None:
            self._transport.sendto(data)
        elif len(self._waiting) < _MOST_WAITING:
            self._waiting.append(data)

    def stop(self) -> None:
        self._port.forget(self._key, self)
        self._task.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        for data in self._waiting:
            self._transport.sendto(data)
        self._waiting.clear()

    def datagram_received(self, data: bytes, addr: Address) -> None:  # noqa: ARG002  the interface's
        self._last = time.monotonic()
        self._port.answer(self._key, data)

    def error_received(self, exc: Exception) -> None:
        log.debug("udp: %s", exc)
        if isinstance(exc, ConnectionError) and self._rule is not None:  # slirp tells nothing of the guest's: nobody listens
            self._port.inner.lost(self._rule)
            self.stop()

    async def _live(self) -> None:
        try:
            async with self._port.inner.rule() as self._rule:
                loop = asyncio.get_running_loop()
                transport, _ = await loop.create_datagram_endpoint(lambda: self, remote_addr=(LOOPBACK, self._rule.port))
                try:
                    while (left := self._last + _QUIET_SECONDS - time.monotonic()) > 0:
                        await asyncio.sleep(left)
                finally:
                    transport.close()
        except (WherryError, OSError) as error:
            self._port.dropped(error)
        finally:
            self._port.forget(self._key, self)


class _Outer(asyncio.DatagramProtocol):
    def __init__(self, port: UdpPort, number: int, bound: Bound) -> None:
        self._port = port
        self._number = number
        self._only_local = bound.only_local

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if self._only_local and not ipaddress.ip_address(addr[0].partition("%")[0]).is_loopback:
            return
        self._port.received(self._number, data, addr)

    def error_received(self, exc: Exception) -> None:
        log.debug("udp: %s", exc)
