"""The loop in which all published ports are served: one thread, whatever their number and that of their connections."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from launcher.keeper.ports.inner import Inner
from launcher.keeper.ports.rules import Monitor, Rules
from launcher.keeper.ports.sockets import Bound
from launcher.keeper.ports.tcp import TcpPort
from launcher.keeper.ports.udp import UdpPort

log = logging.getLogger("wherry.ports")

_ANSWERS_WITHIN: Final = 60.0
_A_MOMENT: Final = 0.02
_QEMU_WITHIN: Final = 5.0  # rules that it does not take away in that time are left to the next keeper
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

    def __init__(
        self, monitor: Monitor, held: Callable[[], bool], awake: Callable[[], None] = lambda: None
    ) -> None:  # fmt: skip
        self.rules = Rules(monitor, awake)
        self._held = held
        self._ports: set[Port] = set()  # with what they have begun, until that has ended
        self._inners: dict[tuple[str, tuple[str, int]], Inner] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ports", daemon=True)
        self._thread.start()

    def uses(self) -> tuple[int, int]:
        """Connections that are there, and how many there ever were."""
        return sum(port.connections for port in list(self._ports)), self.rules.used

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
        asked = {task for one in self._inners.values() for task in one.tasks}
        if asked:
            await asyncio.wait(asked, timeout=_QEMU_WITHIN)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(_A_MOMENT)  # in which closed transports close their sockets
        await self._loop.shutdown_default_executor()

    async def _open(self, proto: str, target: tuple[str, int], bound: list[Bound]) -> Port:
        inner = self._inner(proto, target)
        port: Port = TcpPort(inner, bound, self._held) if proto == "tcp" else UdpPort(inner, bound)
        try:
            await port.open()
        except BaseException:
            await port.close()
            raise
        self._ports = {one for one in self._ports if one.connections or not one.closed} | {port}
        return port

    def _inner(self, proto: str, target: tuple[str, int]) -> Inner:
        """One for all ports with that target."""
        self._inners = {key: one for key, one in self._inners.items() if not one.idle}
        inner = self._inners.setdefault((proto, target), Inner(self.rules, proto, target))
        inner.claim()
        return inner

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWERS_WITHIN)
