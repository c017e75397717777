"""The way into the guest: QEMU's hostfwd for one port, there only while connections are handed over.

An accepted connection outlives the rule by which it came, so a rule is taken away again after a short quiet: on the host
nothing listens but what was asked for. slirp listens with a backlog of 1 and Linux drops the connection that finds it full,
which a client would try again only after a second: so connections are made one at a time, and one that is not there at once is
given up and made anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from launcher.errors import ConnectionLost, NotRunning, WherryError
from launcher.qemu.qmp import Qmp, human

log = logging.getLogger("wherry.ports")

LINGER: Final = 2.0  # seconds without a new connection after which a rule goes
_CONNECT_SECONDS: Final = 0.004  # on the loopback a connection is there at once, or was dropped
_PAUSE: Final = 0.002
_PATIENCE: Final = 30.0  # for a QEMU that is held up and accepts nothing
_TRIES: Final = 5
LOOPBACK: Final = "127.0.0.1"
# `  TCP[HOST_FORWARD]  12       127.0.0.1 40911       10.0.2.15    22     0     0`
_RULE: Final = re.compile(r"^\s*(TCP|UDP)\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)\s+(\S+)\s+(\d+)\s", re.MULTILINE)

Monitor = Callable[[], Qmp | None]


class Inner:
    """One port of the guest. Used in the forwarder's loop only."""

    def __init__(self, monitor: Monitor, proto: str, target: tuple[str, int]) -> None:
        self._monitor = monitor
        self._proto = proto
        self._target = target
        self._port = 0  # of the rule that is there
        self._users = 0
        self._changing = asyncio.Lock()
        self._pacing = asyncio.Lock()
        self._removal: asyncio.TimerHandle | None = None

    async def connect(self) -> socket.socket:
        """A connected socket, not blocking. Raises WherryError."""
        async with self.rule() as port:
            return await self._paced(port)

    @contextlib.asynccontextmanager
    async def rule(self) -> AsyncIterator[int]:
        """The rule's port on 127.0.0.1, as long as it is wanted. Raises WherryError."""
        self._users += 1
        try:
            if self._removal is not None:
                self._removal.cancel()
                self._removal = None
            async with self._changing:
                if not self._port:
                    self._port = await asyncio.get_running_loop().run_in_executor(None, self._add)
            yield self._port
        finally:
            self._users -= 1
            if not self._users:
                self._removal = asyncio.get_running_loop().call_later(LINGER, self._retire)

    def discard(self) -> None:
        """Nobody connects any more: take the rule away without waiting for QEMU."""
        _keep(asyncio.get_running_loop().create_task(self._remove(even_if_used=True)))

    def _retire(self) -> None:
        self._removal = None
        _keep(asyncio.get_running_loop().create_task(self._remove(even_if_used=False)))

    async def _remove(self, *, even_if_used: bool) -> None:
        async with self._changing:
            if self._port and (even_if_used or not self._users):
                port, self._port = self._port, 0
                await asyncio.get_running_loop().run_in_executor(None, remove_rule, self._monitor, self._proto, port)

    async def _paced(self, port: int) -> socket.socket:
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + _PATIENCE
        while True:
            async with self._pacing:
                stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                stream.setblocking(False)
                try:
                    await asyncio.wait_for(loop.sock_connect(stream, (LOOPBACK, port)), _CONNECT_SECONDS)
                    return stream
                except (OSError, TimeoutError) as error:
                    if _is_connected(stream):  # we were late, not the kernel: the server must not see a connection too many
                        return stream
                    stream.close()
                    if time.monotonic() > deadline:
                        raise ConnectionLost(f"QEMU takes no connection for port {self._target[1]}: {error!r}") from error
                except BaseException:
                    stream.close()
                    raise
                await asyncio.sleep(_PAUSE)

    def _add(self) -> int:
        """In a thread of its own: QEMU answers when its loop comes round."""
        qmp = self._monitor()
        if qmp is None:
            raise NotRunning("the machine is off.")
        words = ""
        for _ in range(_TRIES):
            port = _free_port(self._proto)
            words = human(qmp, f"hostfwd_add {self._proto}:{LOOPBACK}:{port}-{self._target[0]}:{self._target[1]}").strip()
            if not words:
                return port
        raise WherryError(f"QEMU forwards no port to {self._target[0]}:{self._target[1]}: {words}")


def _is_connected(stream: socket.socket) -> bool:
    try:
        stream.getpeername()
    except OSError:
        return False
    return True


def remove_rule(monitor: Monitor, proto: str, port: int) -> None:
    qmp = monitor()
    if qmp is not None:
        with contextlib.suppress(WherryError):  # it went with QEMU
            human(qmp, f"hostfwd_remove {proto}:{LOOPBACK}:{port}")


def rules_left(qmp: Qmp, ssh_port: int) -> list[tuple[str, int]]:
    """Rules that a keeper before us left, which are all but that of sshd: protocol and port."""
    found = _RULE.findall(human(qmp, "info usernet"))
    return [(proto.lower(), int(port)) for proto, port, _, _ in found if int(port) != ssh_port]


def _free_port(proto: str) -> int:
    # hostfwd_add with port 0 works, but only the list of all of slirp's connections tells which it took.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


_tasks: set[asyncio.Task[None]] = set()


def _keep(task: asyncio.Task[None]) -> None:
    """The loop holds tasks weakly."""
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
