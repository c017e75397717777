"""paramiko's transport, made fit for many short channels from many threads.

Three things of its Channel are wrong for that; the names used here are private, tests/test_proxy.py fails when
they change.

- It decides under a lock what to say and says it outside: another thread's close may overtake it. OpenSSH ends the whole
  connection at a word about a channel that is closed (channels.c, channel_from_packet_id).
- The reading thread itself answers a close, and blocks while keys are exchanged: then nobody reads the keys.
- It notes the number of each channel for ever.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import paramiko
from paramiko.common import MSG_CHANNEL_CLOSE

log = logging.getLogger("wherry.ssh")

CLOSED_KNOWN: Final = 200


class Transport(paramiko.Transport):
    """Give it every channel when it is open: `take`."""

    def __init__(self, stream: socket.socket, window: int, packet: int) -> None:
        super().__init__(stream, window, packet)
        # paramiko holds channels weakly, and would not see the other side close one that nobody holds any more.
        self._held: dict[int, paramiko.Channel] = {}
        self._forgettable: deque[int] = deque()
        self._answers: queue.SimpleQueue[tuple[_Door, paramiko.Message] | None] = queue.SimpleQueue()
        self._over = False
        self._tell_over: list[Callable[[], object]] = []
        self._over_lock = threading.Lock()
        threading.Thread(target=self._send_answers, name="ssh-answers", daemon=True).start()

    def run(self) -> None:
        """The reading thread; when it ends, so has the connection."""
        try:
            super().run()
        finally:
            with self._over_lock:
                self._over = True
            for tell in self._tell_over:
                tell()
            self._answers.put(None)

    def when_ended(self, tell: Callable[[], object]) -> None:
        with self._over_lock:
            if not self._over:
                self._tell_over.append(tell)
                return
        tell()

    def take(self, channel: paramiko.Channel) -> paramiko.Channel:
        """Keep the channel until the other side has closed it, and put what it says in order."""
        with channel.lock:
            if self._channels.get(channel.chanid) is channel:  # type: ignore[attr-defined]
                self._held[channel.chanid] = channel
                channel.transport = _Door(self, self._answers)
        return channel

    def close(self) -> None:
        super().close()
        self._answers.put(None)

    def _unlink_channel(self, chanid: int) -> None:
        """Called with the channel's lock when the other side has closed it."""
        super()._unlink_channel(chanid)  # type: ignore[misc]
        self._held.pop(chanid, None)
        # The last ones stay known: paramiko as a server does what is said above, and an unknown channel ends the connection.
        self._forgettable.append(chanid)
        if len(self._forgettable) > CLOSED_KNOWN:
            self.channels_seen.pop(self._forgettable.popleft(), None)

    def _send_answers(self) -> None:
        while (item := self._answers.get()) is not None:
            door, message = item
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                door.send(message)


class _Door:
    """The transport as one channel sees it: what it says goes out in order, and nothing after its close."""

    def __init__(self, transport: Transport, answers: queue.SimpleQueue[tuple[_Door, paramiko.Message] | None]) -> None:
        self._transport = transport
        self._answers = answers
        self._lock = threading.Lock()
        self._shut = False

    def _send_user_message(self, message: paramiko.Message) -> None:
        if threading.current_thread() is self._transport:
            self._answers.put((self, message))
        else:
            self.send(message)

    def send(self, message: paramiko.Message) -> None:
        with self._lock:
            if self._shut:
                return
            self._shut = message.asbytes()[0] == MSG_CHANNEL_CLOSE
            self._transport._send_user_message(message)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
