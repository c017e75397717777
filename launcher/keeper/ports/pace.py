"""How many connections may wait for a server's accept at once.

A server with a short queue (busybox httpd: 9) loses what comes beyond it. On one computer the client's kernel tries again after
a second; slirp only after six, then twelve. So no more than a few connections are under way that the server has not answered.
One that waits for its client to speak first answers nothing: after a short quiet the next few go. One that has answered before
is given longer: there the quiet is more often the machine's, which is held up, and what comes on top of a full queue is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

WIDTH: Final = 8
# Seconds without any answer, the first time, the second, and from then on: a busy machine may be held up for a while; 200
# connections to a server that waits for its clients are through after 1.85 s.
QUIET: Final = (0.5, 0.25, 0.05)
QUIET_OF_ONE_THAT_ANSWERS: Final = (1.0, 0.5, 0.5, 0.5, 0.06)


class Pace:
    """Of one port; used in the forwarder's loop only."""

    def __init__(self) -> None:
        self._unanswered: set[object] = set()
        self._given_up: set[object] = set()  # unanswered too, but no longer waited for
        self._answers = False  # it has, once
        self._waiting: deque[tuple[object, asyncio.Future[None]]] = deque()
        self._last = 0.0
        self._quiets = 0  # since the last answer
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
        """It was: the server speaks. More than once does no harm."""
        self._answers = True
        self.left(who)

    def left(self, who: object) -> None:
        """It is waited for no more. More than once does no harm."""
        if who in self._unanswered or who in self._given_up:
            self._unanswered.discard(who)
            self._given_up.discard(who)
            self._last = time.monotonic()
            self._quiets = 0
            self._admit()

    def _admit(self) -> None:
        while self._waiting and len(self._unanswered) < WIDTH:
            who, turn = self._waiting.popleft()
            if not turn.done():
                self._unanswered.add(who)
                turn.set_result(None)

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(QUIET[-1], self._look)

    def _look(self) -> None:
        self._timer = None
        quiet = QUIET_OF_ONE_THAT_ANSWERS if self._answers else QUIET
        if time.monotonic() - self._last >= quiet[min(self._quiets, len(quiet) - 1)] * 0.9:
            self._quiets += 1
            self._last = time.monotonic()
            self._given_up |= self._unanswered
            self._unanswered.clear()
            self._admit()
        if self._waiting:
            self._look_later()
