"""The client of an exec session: our terminal or pipes on one side, the keeper's control socket on the other.

Imported on the path of every `wherry run` and `wherry docker`: nothing that is slow to import belongs here.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from launcher import control, host
from launcher.control import Framed, Input
from launcher.errors import ConnectionLost, WherryError, from_json
from launcher.host import Terminal

# What a shell shows for a program that SIGPIPE ended: nobody reads our output.
PIPE_CLOSED: Final = 128 + 13
_SIZE: Final = struct.Struct(">HH")
# Where no signal tells of a resize (docker's own client does the same on Windows).
_RESIZE_SECONDS: Final = 0.25


def run_exec(
    path: Path,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None,
    tty: bool,
    client: bool,
    stdin: bool = True,
    ensure_hello: bool = False,
) -> int:
    """Run a command in the machine on our own streams; returns its exit code. In the main thread only.

    `tty` wants both stdin and stdout to be terminals. Without `stdin` ours is not read, the command sees an empty one: what is
    typed, or piped in for a later command, stays. `client` marks a docker client, which queues with others for its start.

    Raises what kept the command from starting, and ConnectionLost when its end is unknown.
    """
    terminal = host.current().terminal()
    rows, columns = terminal.size()
    framed = control.request(
        path, "exec", argv=list(argv), env=dict(env), cwd=cwd, tty=tty, rows=rows, cols=columns,
        term=os.environ.get("TERM", "xterm"), client=client, ensure_hello=ensure_hello,
    )  # fmt: skip
    source = Input(framed)
    try:
        with _forwarded(framed, terminal), terminal.raw() if tty else contextlib.nullcontext():
            # A daemon: it may read from a terminal or a pipe that never ends, and must not keep us.
            threading.Thread(target=_pump_input, args=(terminal if stdin else None, source), daemon=True).start()
            return _receive(framed, terminal, source)
    except BrokenPipeError:
        return PIPE_CLOSED
    finally:
        source.close()
        with contextlib.suppress(OSError):
            framed.stream.shutdown(socket.SHUT_RDWR)
        framed.close()


def _receive(framed: Framed, terminal: Terminal, source: Input) -> int:
    """Take frames until the exit code. Raises BrokenPipeError when our output is closed."""
    while (frame := framed.receive()) is not None:
        kind, payload = frame
        if kind in (control.STDOUT, control.STDERR):
            _write(terminal, 1 if kind == control.STDOUT else 2, payload)
        elif kind == control.CREDIT:
            source.grant(payload)
        elif kind == control.EXIT:
            end = json.loads(payload)
            if end.get("lost"):
                raise ConnectionLost(end.get("message") or "the command's end is unknown.", hint="wherry status")
            return int(end["code"])
        elif kind == control.JSON:
            answer = json.loads(payload)
            if answer.get("ok") is False:
                raise from_json(answer.get("error") or {})
    raise ConnectionLost("the keeper ended: how the command ended is unknown.", hint="wherry status")


def _write(terminal: Terminal, descriptor: int, data: bytes) -> None:
    try:
        terminal.write(descriptor, data)
    except OSError as error:
        # A terminal that was closed answers EIO, Windows EINVAL: all the same to us, nobody reads.
        if error.errno in (errno.EPIPE, errno.EIO, errno.EINVAL):
            raise BrokenPipeError from error
        raise WherryError(f"the output cannot be written: {error.strerror}.") from error


def _pump_input(terminal: Terminal | None, source: Input) -> None:
    try:
        while terminal is not None and (data := terminal.read(control.CHUNK)):
            source.send(data)
        source.end()
    except OSError:
        pass  # the command, or the keeper, has ended


@contextlib.contextmanager
def _forwarded(framed: Framed, terminal: Terminal) -> Iterator[None]:
    """Signals that we get go to the command.

    Through a thread, not in the handler: that runs between two steps of the main thread, which may hold the lock of `framed`,
    or be stuck in a write. The wakeup descriptor is written at once, by C.
    """
    names = terminal.signals()
    receiving, waking = socket.socketpair()
    waking.setblocking(False)
    # What was ignored when we started stays ignored (nohup, background jobs).
    before = {number: signal.getsignal(number) for number in (*names, *terminal.RESIZES)}
    trapped = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    former = signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_forward, args=(framed, terminal, receiving, names), daemon=True)
    thread.start()
    try:
        for number in trapped:
            signal.signal(number, _nothing)
        yield
    finally:
        for number in trapped:
            signal.signal(number, before[number])
        signal.set_wakeup_fd(former)
        waking.close()
        thread.join()
        receiving.close()


def _nothing(_number: int, _frame: object) -> None:
    """A handler must be there for the wakeup descriptor to be written."""


def _forward(framed: Framed, terminal: Terminal, receiving: socket.socket, names: Mapping[int, str]) -> None:
    known = terminal.size()
    receiving.settimeout(None if terminal.RESIZES else _RESIZE_SECONDS)
    with contextlib.suppress(OSError):
        while True:
            try:
                numbers = receiving.recv(64)
            except TimeoutError:
                numbers = None
            if numbers == b"":
                return
            for number in numbers or b"":
                if number in names:
                    framed.send(control.SIGNAL, names[number].encode("ascii"))
            if (size := terminal.size()) != known:
                known = size
                framed.send(control.WINDOW, _SIZE.pack(*size))
