"""QEMU's monitor and serial line: made before QEMU is, so that nobody waits for them to appear.

Sockets that QEMU inherits, where the system hands descriptors over: a later keeper connects to them again. Where it does not,
on Windows, the monitor is on QEMU's standard streams, never on a TCP port, which every user and every container could open, and
the serial line is a named pipe of ours that QEMU takes for a file. Both end with the keeper: nobody can take that QEMU over.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol

from launcher import host
from launcher.errors import ConnectionLost, NoProgress, Refused
from launcher.host import pipes
from launcher.host.streams import Listening, Stream
from launcher.qemu import qmp
from launcher.qemu.chardevs import Channel, OutputFile, Stdio, UnixListener
from launcher.qemu.process import QemuProcess
from launcher.store import MachineDir

_DIAL_SECONDS: Final = 10.0
_LOOKS_EVERY: Final = 0.1
_LOCK_SECONDS: Final = 2.0

Started = tuple[QemuProcess, qmp.Stream, "Line"]


class Line(Protocol):
    """What is used of the serial line."""

    def recv(self, size: int, /) -> bytes: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class Channels(Protocol):
    """Both of them, for a QEMU that is about to start."""

    monitor: Channel
    serial: Channel

    def start(self, program: Path, words: Sequence[str]) -> Started:
        """QEMU, and our ends of its monitor and its serial line. Raises LaunchFailed, and MissingOnHost."""


def made(directory: MachineDir, stack: ExitStack) -> Channels:
    """What is not handed over to QEMU is closed by `stack`. Raises Refused when a QEMU of the machine runs."""
    return Sockets(directory, stack) if host.current().ENDPOINT == "unix" else Pipes(directory, stack)


class Sockets:
    """Listening unix sockets, and the machine's lock, which QEMU inherits."""

    def __init__(self, directory: MachineDir, stack: ExitStack) -> None:
        self._directory = directory
        self._lock = _qemu_lock(directory)
        stack.callback(os.close, self._lock)
        self._descriptors = [listener(path, stack).fileno() for path in (directory.qmp_socket, directory.serial_socket)]
        self.monitor: Channel = UnixListener(self._descriptors[0])
        self.serial: Channel = UnixListener(self._descriptors[1])

    def start(self, program: Path, words: Sequence[str]) -> Started:
        directory = self._directory
        serial = dial(directory.serial_socket)
        monitor = dial(directory.qmp_socket)
        process = QemuProcess.start(
            program, words, cwd=directory.path, log=directory.qemu_log, pass_fds=self._descriptors, lock_fd=self._lock
        )
        return process, monitor, serial


class Pipes:
    """Standard streams for the monitor, a named pipe for the serial line; QEMU itself opens the machine's lock file."""

    def __init__(self, directory: MachineDir, stack: ExitStack) -> None:
        if directory.qemu_runs():
            raise _running(directory)
        self._directory = directory
        path = host.current().endpoints().path(directory.run_dir, directory.name, "serial")
        self._listening = pipes.Listening(str(path), inbound=True)
        self._started = False
        stack.callback(self._discard)
        self.monitor: Channel = Stdio(lock=directory.qemu_lock_file.name)
        self.serial: Channel = OutputFile(str(path))

    def start(self, program: Path, words: Sequence[str]) -> Started:
        directory = self._directory
        process = QemuProcess.start(program, words, cwd=directory.path, log=directory.qemu_log, stdio=True)
        self._started = True
        line = _Expected(self._listening)
        threading.Thread(target=_give_up, args=(process, line), name="serial-end", daemon=True).start()
        return process, qmp.Pipes(*process.stdio), line

    def _discard(self) -> None:
        if not self._started:
            self._listening.close()


class _Expected:
    """A connection that is waited for by who reads it first."""

    def __init__(self, listening: Listening) -> None:
        self._listening = listening
        self._stream: Stream | None = None
        self._arriving = threading.Lock()

    def recv(self, size: int, /) -> bytes:
        with self._arriving:
            if self._stream is None:
                self._stream = self._listening.accept()
        return self._stream.recv(size)

    def shutdown(self, how: int, /) -> None:
        self.nobody_comes()
        if self._stream is not None:
            self._stream.shutdown(how)

    def close(self) -> None:
        self.nobody_comes()
        if self._stream is not None:
            self._stream.close()

    def nobody_comes(self) -> None:
        """A connection that is there goes on."""
        self._listening.close()


def _give_up(process: QemuProcess, line: _Expected) -> None:
    """A QEMU that refuses its arguments ends before it opens the serial line."""
    process.wait()
    line.nobody_comes()


def listener(path: Path, stack: ExitStack) -> socket.socket:
    """A listening socket that QEMU inherits."""
    path.unlink(missing_ok=True)
    listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    listening.bind(str(path))
    path.chmod(0o600)
    listening.listen(4)
    return listening


def dial(path: Path) -> socket.socket:
    """Raises ConnectionLost when nobody listens, NoProgress when nobody takes the connection."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Where QEMU's queue is full Linux refuses at once with Python's timeout, which does not block; with its own it waits.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_DIAL_SECONDS))
    try:
        stream.connect(str(path))
    except OSError as error:
        stream.close()
        if isinstance(error, BlockingIOError | TimeoutError):  # earlier keepers wait in its queue as well
            raise NoProgress(f"QEMU takes no connection at {path}.", hint="wherry logs qemu") from error
        raise ConnectionLost(f"QEMU does not answer at {path}: {error}.", hint="wherry logs qemu") from error
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(0))
    return stream


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))


def _qemu_lock(directory: MachineDir) -> int:
    """The lock that QEMU is to inherit. Who looks whether it is taken holds it for a moment: hence several tries."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        lock = host.current().lock(directory.qemu_lock_file, wait=False)
        if lock is not None:
            return lock
        if time.monotonic() > deadline:
            raise _running(directory)
        time.sleep(_LOOKS_EVERY)


def _running(directory: MachineDir) -> Refused:
    return Refused(f"a QEMU of machine {directory.name!r} runs already.", hint=directory.repair_hint)
