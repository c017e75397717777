"""How many connections may wait for a server's accept at once.

A server with a short queue (busybox httpd: 9) loses what comes beyond it. On one computer the client's kernel tries again after
a second; slirp only after six, then twelve. So no more than a few connections are under way that the server has not answered.
One that waits for its client to speak first answers nothing: after a short quiet the next few go.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

WIDTH: Final = 8
QUIET: Final = 0.06  # seconds without any answer; 200 connections to a silent server are through after 1.5 s
STALL: Final = 0.5  # the same where the server has just answered others: it, or its machine, is held up


class Pace:
    """Of one port; used in the forwarder's loop only."""

    def __init__(self) -> None:
        self._unanswered: set[object] = set()
        self._waiting: deque[tuple[object, asyncio.Future[None]]] = deque()
        self._last = 0.0
        self._answers = False  # it did since the last quiet
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, who: object) -> None:
        """Wait for a place, and have it until `answered`."""
        if self._waiting or len(self._unanswered) >= WIDTH:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((who, turn))
            if self._timer is None:
                self._last = time.monotonic()
                self._look_later()
            await turn
        else:
            self._unanswered.add(who)

    def answered(self, who: object) -> None:
        """It was, or will not be any more. More than once does no harm."""
        if who in self._unanswered:
            self._unanswered.discard(who)
            self._last = time.monotonic()
            self._answers = True
            self._admit()

    def _admit(self) -> None:
        while self._waiting and len(self._unanswered) < WIDTH:
            who, turn = self._waiting.popleft()
            if not turn.done():
                self._unanswered.add(who)
                turn.set_result(None)

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(QUIET, self._look)

    def _look(self) -> None:
        self._timer = None
        if time.monotonic() - self._last >= (STALL if self._answers else QUIET) * 0.9:
            self._answers = False
            self._last = time.monotonic()
            self._unanswered.clear()
            self._admit()
        if self._waiting:
            self._look_later()
