"""The way into the guest: QEMU's hostfwd for one port, there only while connections are handed over.

An accepted connection outlives the rule by which it came, so a rule is taken away again after a short quiet: on the host
nothing listens but what was asked for. slirp listens with a backlog of 1 and Linux drops the connection that finds it full,
which a client would try again only after a second: so connections are made one at a time, and one that is not there at once is
given up and made anew. A rule ends with its QEMU, and is made anew in the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

from launcher.errors import ConnectionLost
from launcher.keeper.ports.rules import LOOPBACK, Rule, Rules

LINGER: Final = 2.0  # seconds without a new connection after which a rule goes
_CONNECT_SECONDS: Final = 0.004  # on the loopback a connection is there at once, or was dropped
_PAUSE: Final = 0.002
_PATIENCE: Final = 30.0  # for a QEMU that is held up and accepts nothing
_RULES: Final = 3  # for one connection
_REFUSALS: Final = 50  # in a row, after which nobody listens: Windows refuses too where the queue is full


class Inner:
    """One port of the guest, for all that lead to it: slirp finds the way of a datagram back by the guest's address alone, and
    two rules would take each other's. Used in the forwarder's loop only."""

    def __init__(self, rules: Rules, proto: str, target: tuple[str, int]) -> None:
        self._rules = rules
        self._proto = proto
        self._target = target
        self._claims = 0  # of those who may connect
        self._users = 0  # who do, now
        self._rule: Rule | None = None
        self._refused = 0
        self._changing = asyncio.Lock()
        self._pacing = asyncio.Lock()
        self._removal: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def claim(self) -> None:
        """One more may connect, until `discard`."""
        self._claims += 1

    def discard(self) -> None:
        """One less may. The last takes the rule away without waiting for QEMU."""
        self._claims -= 1
        if self._claims <= 0:
            self._begin(self._remove(even_if_used=True))

    @property
    def idle(self) -> bool:
        """Whether nothing is known by it that another would not know."""
        return not (self._claims > 0 or self._users or self._rule or self._tasks)

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """What QEMU is being asked."""
        return set(self._tasks)

    async def connect(self) -> socket.socket:
        """A connected socket, not blocking. Raises WherryError, OSError."""
        self._rules.used += 1
        for again in range(_RULES):
            if again and self._claims <= 0:
                break
            async with self.rule() as rule:
                stream = await self._paced(rule)
            if stream is not None:
                return stream
        raise ConnectionLost(f"QEMU has lost the way to port {self._target[1]}.")

    @contextlib.asynccontextmanager
    async def rule(self) -> AsyncIterator[Rule]:
        """The rule, as long as it is wanted. Raises WherryError, OSError."""
        self._users += 1
        try:
            if self._removal is not None:
                self._removal.cancel()
                self._removal = None
            # Shielded: what is made while he who wanted it ends has to be known, so that it goes again.
            yield await asyncio.shield(self._begin(self._have()))
        finally:
            self._users -= 1
            if not self._users:
                self._removal = asyncio.get_running_loop().call_later(LINGER, self._retire)

    def stands(self, rule: Rule) -> bool:
        """Whether it still leads into the guest, as far as it is known."""
        return rule is self._rule and self._rules.stands(rule)

    def lost(self, rule: Rule) -> None:
        """Nobody listens there: the next who wants one has another."""
        if rule is self._rule:
            self._rule = None
            self._begin(self._ask(self._rules.remove, rule))

    async def _have(self) -> Rule:
        async with self._changing:
            if self._rule is not None and not self._rules.stands(self._rule):
                self.lost(self._rule)
            if self._rule is None:
                self._rule = await self._ask(self._rules.add, self._proto, self._target)
                self._refused = 0
            return self._rule

    def _retire(self) -> None:
        self._removal = None
        self._begin(self._remove(even_if_used=False))

    async def _remove(self, *, even_if_used: bool) -> None:
        async with self._changing:
            rule = self._rule
            if rule is not None and (not self._users or (even_if_used and self._claims <= 0)):
                self._rule = None
                await self._ask(self._rules.remove, rule)

    async def _paced(self, rule: Rule) -> socket.socket | None:
        """None: the rule is gone."""
        deadline = time.monotonic() + _PATIENCE
        while self.stands(rule):
            async with self._pacing:
                stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                try:
                    await _connect(stream, rule.port)
                except (OSError, TimeoutError) as error:
                    stream.close()
                    if time.monotonic() > deadline:
                        raise ConnectionLost(f"QEMU takes no connection for port {self._target[1]}: {error!r}") from error
                    self._refused = self._refused + 1 if isinstance(error, ConnectionRefusedError) else 0
                except BaseException:
                    stream.close()
                    raise
                else:
                    self._refused = 0
                    return stream
            if self._refused >= _REFUSALS:
                self.lost(rule)
            await asyncio.sleep(_PAUSE)
        return None

    @staticmethod
    async def _ask(call: Any, *words: Any) -> Any:
        """In a thread of its own: QEMU answers when its loop comes round."""
        return await asyncio.get_running_loop().run_in_executor(None, call, *words)

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """The loop holds tasks weakly."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _connect(stream: socket.socket, port: int) -> None:
    """Raises OSError or TimeoutError when it is not connected at once."""
    stream.setblocking(False)
    try:
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(stream, (LOOPBACK, port)), _CONNECT_SECONDS)
    except (OSError, TimeoutError):
        with contextlib.suppress(OSError):
            stream.getpeername()
            return  # we were late, not the kernel: the server must not see a connection too many
        raise
