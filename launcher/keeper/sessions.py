"""One command in the guest for one client: frames of the control socket on one side, an SSH channel on the other.

Nothing is buffered without bound. Output: a blocked client blocks our write, we stop reading the channel, its window closes.
Input: the client sends what we gave it credit for, so that our reader never waits and sees signals and the client's end.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from launcher import control
from launcher.control import Framed
from launcher.errors import ConnectionLost, Usage, WherryError
from launcher.keeper.slots import Place, StartSlots
from launcher.ssh import request as messages
from launcher.ssh.library import broken
from launcher.ssh.transport import Connection, Prepared, Terminal, close, receive

if TYPE_CHECKING:
    from paramiko import Channel

log = logging.getLogger("wherry.sessions")

# What sshd takes (session.c, name2sig) and a client sends, with Linux's numbers.
SIGNALS: Final = {"HUP": 1, "INT": 2, "QUIT": 3, "USR1": 10, "USR2": 12, "TERM": 15}
_NAMES: Final = {number: name for name, number in SIGNALS.items()}
_SIZE: Final = struct.Struct(">HH")
_COUNT: Final = struct.Struct(">I")


@dataclass(frozen=True)
class Exec:
    """An exec request, checked."""

    argv: list[str]
    env: dict[str, str]
    cwd: str | None
    terminal: Terminal | None
    client: bool  # counts against the start slots

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Exec:
        argv, env, cwd = value.get("argv"), value.get("env") or {}, value.get("cwd")
        if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
            raise Usage("an exec request needs a list of words.")
        if not isinstance(env, dict) or not all(isinstance(text, str) for text in env.values()):
            raise Usage("the environment of an exec request is no map of texts.")
        if not isinstance(cwd, str | None):
            raise Usage("the directory of an exec request is no text.")
        terminal = None
        if value.get("tty"):
            terminal = Terminal(str(value.get("term") or "xterm"), int(value.get("rows") or 24), int(value.get("cols") or 80))
        return cls(argv, env, cwd, terminal, value.get("client") is True)


class Opener(Protocol):
    """Who has the connection: `launcher.keeper.reach`."""

    def open(self, make: Callable[[Connection], Prepared]) -> Prepared: ...


def serve_exec(framed: Framed, request: dict[str, Any], opener: Opener, slots: StartSlots) -> None:
    """Serve one request to its end, in the calling thread.

    Sends an exit frame, or raises the WherryError that kept the command from starting.
    """
    _Session(framed, Exec.parse(request)).serve(opener, slots)


class _Session:
    def __init__(self, framed: Framed, wanted: Exec) -> None:
        self._framed = framed
        self._wanted = wanted
        self._lock = threading.Lock()  # for the fields up to _untaken
        self._channel: Channel | None = None
        self._place: Place | None = None
        self._terminal = wanted.terminal
        self._signalled = 0  # the last signal that the client sent
        self._gone = False  # the client has ended
        self._untaken = 0  # bytes of input that the command has not taken
        self._input: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def serve(self, opener: Opener, slots: StartSlots) -> None:
        reader = threading.Thread(target=self._read_client, name="exec-client", daemon=True)
        reader.start()
        try:
            if self._admitted(slots):
                self._run(opener.open(self._prepare))
            elif not self._gone:
                self._send_exit({"code": 128 + self._signalled})
        finally:
            self._leave()
            # Wakes the reader, which must be out of the socket before the server closes it.
            with contextlib.suppress(OSError):
                self._framed.stream.shutdown(socket.SHUT_RD)
            reader.join()

    # The start.

    def _admitted(self, slots: StartSlots) -> bool:
        if not self._wanted.client:
            return True
        place = slots.enter()
        with self._lock:
            self._place = place
            ended = self._gone or self._signalled
        if ended:
            place.leave()
        return place.wait() and not self._gone

    def _leave(self) -> None:
        if self._place is not None:
            self._place.leave()

    def _prepare(self, connection: Connection) -> Prepared:
        return connection.prepare(self._wanted.argv, self._wanted.env, self._wanted.cwd)

    def _run(self, prepared: Prepared) -> None:
        channel = prepared.start(self._wanted.terminal)
        pumps = [threading.Thread(target=self._pump_input, args=(channel,), name="exec-stdin", daemon=True)]
        errors = threading.Thread(target=self._pump_output, args=(channel.recv_stderr, control.STDERR), daemon=True)
        try:
            self._catch_up(channel)
            pumps.append(errors)
            for thread in pumps:
                thread.start()
            self._pump_output(channel.recv, control.STDOUT)
            errors.join()
            if not self._gone:
                self._report(channel.recv_exit_status(), prepared.connection)
        finally:
            close(channel)
            self._input.put(None)
            for thread in pumps:
                thread.join()

    def _catch_up(self, channel: Channel) -> None:
        """From here on the reader acts on the channel; what it saw before is done now."""
        with self._lock:
            self._channel = channel
            gone, signalled, terminal = self._gone, self._signalled, self._terminal
        with contextlib.suppress(*broken()):
            if terminal is not None and terminal != self._wanted.terminal:
                channel.resize_pty(terminal.columns, terminal.rows)
            if signalled:
                messages.send_signal(channel, _NAMES[signalled])
        if gone:
            self._kill(channel)

    # From the command to the client.

    def _pump_output(self, channel_receive: Callable[[int], bytes], kind: bytes) -> None:
        try:
            while data := receive(channel_receive):
                self._leave()
                self._framed.send(kind, data)
        except OSError:
            self._client_gone()

    def _report(self, status: int, connection: Connection) -> None:
        if status >= 0:
            self._send_exit({"code": status})
        elif self._signalled and connection.alive:
            # A signal that comes before the helper is ready ends the helper, and paramiko drops what sshd says of it.
            self._send_exit({"code": 128 + self._signalled})
        else:
            why = "the machine did not tell the command's end" if connection.alive else "the connection to the machine ended"
            self._send_exit({"lost": True, "message": f"{why}: how {self._wanted.argv[0]} ended is unknown."})

    def _send_exit(self, value: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._framed.send_json(value, control.EXIT)

    # From the client to the command.

    def _read_client(self) -> None:
        try:
            while (frame := self._framed.receive()) is not None:
                self._take(*frame)
        except (OSError, WherryError) as error:
            log.info("a client ended: %s", error)
        except Exception:
            log.exception("a client sent what cannot be read")
        finally:
            self._client_gone()

    def _take(self, kind: bytes, payload: bytes) -> None:
        if kind == control.STDIN and payload:
            with self._lock:
                self._untaken += len(payload)
                if self._untaken > control.STDIN_WINDOW:
                    raise ConnectionLost("a client sent more input than it had credit for.")
            self._input.put(payload)
        elif kind == control.STDIN_END:
            self._input.put(None)
        elif kind == control.WINDOW:
            self._resize(*_SIZE.unpack(payload))
        elif kind == control.SIGNAL:
            self._signal(payload.decode("ascii"))

    def _pump_input(self, channel: Channel) -> None:
        try:
            while (data := self._input.get()) is not None:
                channel.sendall(data)
                with self._lock:
                    self._untaken -= len(data)
                self._framed.send(control.CREDIT, _COUNT.pack(len(data)))
            channel.shutdown_write()
        except broken() as error:
            log.debug("input ended: %s", error)

    def _resize(self, rows: int, columns: int) -> None:
        with self._lock:
            if self._terminal is None:
                return
            self._terminal = replace(self._terminal, rows=rows, columns=columns)
            channel = self._channel
        if channel is not None:
            with contextlib.suppress(*broken()):
                channel.resize_pty(columns, rows)

    def _signal(self, name: str) -> None:
        if name not in SIGNALS:
            log.info("no signal to send: %r", name)
            return
        with self._lock:
            self._signalled = SIGNALS[name]
            channel, place = self._channel, self._place
        if channel is not None and channel.exit_status_ready():
            # The command has ended, what it left behind holds its output: waiting for that is what the user has enough of.
            close(channel)
        elif channel is not None:
            with contextlib.suppress(*broken()):
                messages.send_signal(channel, name)
        elif place is not None:
            place.leave()

    def _client_gone(self) -> None:
        with self._lock:
            if self._gone:
                return
            self._gone = True
            channel, place = self._channel, self._place
        if channel is not None:
            self._kill(channel)
        elif place is not None:
            place.leave()

    @staticmethod
    def _kill(channel: Channel) -> None:
        # Closing a channel ends no process: sshd takes only its pipes away.
        if not channel.exit_status_ready():
            with contextlib.suppress(*broken()):
                messages.send_signal(channel, "KILL")
        close(channel)
