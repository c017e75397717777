"""The loop in which all published ports are served: one thread, whatever their number and that of their connections."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from launcher.keeper.ports.inner import Inner, Monitor
from launcher.keeper.ports.sockets import Bound
from launcher.keeper.ports.tcp import TcpPort
from launcher.keeper.ports.udp import UdpPort

log = logging.getLogger("wherry.ports")

_ANSWERS_WITHIN: Final = 60.0
_A_MOMENT: Final = 0.02
Result = TypeVar("Result")


class Port(Protocol):
    """What is served."""

    closed: bool

    @property
    def connections(self) -> int: ...
    async def open(self) -> None: ...
    async def close(self) -> None: ...
    def cut(self) -> None: ...


class Forwarder:
    """Safe to use from many threads, but not from the loop itself.

    `held`: QEMU stands, so a new TCP connection is broken off at once, which would get no answer.
    """

    def __init__(self, monitor: Monitor, held: Callable[[], bool]) -> None:
        self._monitor = monitor
        self._held = held
        self._ports: set[Port] = set()  # with what they have begun, until that has ended
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ports", daemon=True)
        self._thread.start()

    def open(self, proto: str, target: tuple[str, int], bound: list[Bound]) -> Port:
        """Serve the bound sockets."""
        return self._do(self._open(proto, target, bound))

    def close(self, port: Port) -> None:
        """The sockets are closed when it returns; connections may end what they have begun."""
        self._do(port.close())

    def stop(self) -> None:
        """End all, connections too."""
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ANSWERS_WITHIN)
        self._loop.close()

    async def _stop(self) -> None:
        for port in self._ports:
            await port.close()
        await asyncio.sleep(_A_MOMENT)  # for connections that were just accepted: asyncio makes their transports in tasks
        for port in self._ports:
            port.cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(_A_MOMENT)  # in which closed transports close their sockets
        await self._loop.shutdown_default_executor()

    async def _open(self, proto: str, target: tuple[str, int], bound: list[Bound]) -> Port:
        inner = Inner(self._monitor, proto, target)
        port: Port = TcpPort(inner, bound, self._held) if proto == "tcp" else UdpPort(inner, bound)
        await port.open()
        self._ports = {one for one in self._ports if one.connections or not one.closed} | {port}
        return port

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWERS_WITHIN)
