"""Starting one QEMU with its channels in place before it runs, and taking over one that runs."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

from launcher import host, identity
from launcher.config import MachineConfig
from launcher.errors import ConnectionLost, MissingOnHost, NoProgress, Refused, WherryError
from launcher.identity import Found
from launcher.images import Iso
from launcher.keeper.console import Console
from launcher.keeper.watch import Watch
from launcher.qemu.command import Boot, FileServer, UnixListener, arguments
from launcher.qemu.probe import Qemu
from launcher.qemu.process import QemuProcess
from launcher.qemu.qmp import Qmp
from launcher.store import MachineDir

log = logging.getLogger("wherry.keeper")

_QUIT_SECONDS: Final = 10
_GREETS_WITHIN: Final = 60.0  # seconds
_DIAL_SECONDS: Final = 10.0
_LOOKS_EVERY: Final = 0.1
_LOCK_SECONDS: Final = 2.0
UNKNOWN_EXIT: Final = 1 << 16  # no exit code of a process


class Process(Protocol):
    """A QEMU: our child, or one that an earlier keeper started."""

    @property
    def pid(self) -> int: ...
    @property
    def stamp(self) -> str: ...
    @property
    def argv(self) -> Sequence[str]: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int | None: ...
    def kill(self) -> None: ...


class Adopted:
    """A QEMU that is not our child: how it ends is told to nobody, and wait() gives UNKNOWN_EXIT."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self.pid = found.pid
        self.stamp = found.stamp
        self.argv = found.argv

    def poll(self) -> int | None:
        # The stamp tells it from whoever gets its pid later.
        return None if host.current().process_stamp(self.pid) == self.stamp else UNKNOWN_EXIT

    def wait(self, timeout: float | None = None) -> int | None:
        return UNKNOWN_EXIT if identity.ended(self.pid, self.stamp, timeout) else None

    def kill(self) -> None:
        if identity.process_is(self.pid, self.stamp, self._found.token):
            with suppress(psutil.NoSuchProcess):
                psutil.Process(self.pid).kill()


@dataclass
class Guest:
    """One running QEMU and the channels to it."""

    process: Process
    qmp: Qmp
    console: Console

    def watch_exit(self, watch: Watch) -> None:
        """Tell `watch` when QEMU ends, after the last byte of the console was read."""

        def wait() -> None:
            if isinstance(self.process, Adopted):
                # Its end is told to nobody else, and to look for it ten times a second would never let this computer rest.
                self.console.join(threading.TIMEOUT_MAX)
            code = self.process.wait()
            self.console.join(5)
            watch.on_exit(None if code == UNKNOWN_EXIT else code)

        threading.Thread(target=wait, name="qemu-exit", daemon=True).start()

    def quit(self) -> None:
        """End QEMU: QMP quit flushes the disk; the kill is for one that does not answer."""
        with suppress(WherryError):
            self.qmp.execute("quit", timeout=_QUIT_SECONDS)
        if self.process.wait(_QUIT_SECONDS) is None:
            self.process.kill()
            self.process.wait()
        self.close()

    def close(self) -> None:
        self.qmp.close()
        self.console.close()


def listener(path: Path, stack: ExitStack) -> socket.socket:
    """A listening socket that QEMU inherits: it is there before QEMU is, so nobody waits for it to appear."""
    path.unlink(missing_ok=True)
    listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    listening.bind(str(path))
    path.chmod(0o600)
    listening.listen(4)
    return listening


def _dial(path: Path) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(_DIAL_SECONDS)
    try:
        stream.connect(str(path))
    except OSError as error:
        stream.close()
        if isinstance(error, BlockingIOError | TimeoutError):  # earlier keepers wait in its queue as well
            raise NoProgress(f"QEMU takes no connection at {path}.", hint="wherry logs qemu") from error
        raise ConnectionLost(f"QEMU does not answer at {path}: {error}.", hint="wherry logs qemu") from error
    stream.settimeout(None)
    return stream


def _boot(
    directory: MachineDir, config: MachineConfig, iso: Iso, qemu: Qemu, accel: str, token: str,
    seed: tuple[tuple[str, str], ...], channels: tuple[int, int], file_servers: tuple[FileServer, ...], incoming: bool,
) -> Boot:  # fmt: skip
    offset, size = iso.root_extent()
    disk = directory.suspended_disk if incoming else directory.data_disk
    return Boot(
        name=directory.name, token=token, arch=config.arch, cpus=config.cpus, memory=config.memory, accel=accel,
        kernel=os.fspath(iso.kernel()), initrd=os.fspath(iso.initrd()), iso=os.fspath(iso.path),
        root_offset=offset, root_size=size, data_disk=disk.name, seed=seed,
        qmp=UnixListener(channels[0]), serial=UnixListener(channels[1]), version=qemu.version, sandbox=qemu.sandbox,
        file_servers=file_servers, incoming=incoming,
    )  # fmt: skip


def launch(
    directory: MachineDir, config: MachineConfig, iso: Iso, qemu: Qemu, accel: str, token: str,
    seed: tuple[tuple[str, str], ...], watch: Watch, on_event: Callable[[str, dict[str, Any]], None],
    file_servers: tuple[FileServer, ...] = (), *, incoming: bool = False,
    check: Callable[[Sequence[str]], None] = lambda _words: None,
) -> Guest:  # fmt: skip
    """Start QEMU on one rung of the ladder; `incoming`: with the disk of a suspended machine, to wait for its memory.

    Raises LaunchFailed when it ends at once, Refused when one runs already, and what `check` raises of its command line.
    """
    system = host.current()
    if system.ENDPOINT != "unix":
        raise MissingOnHost(f"machines do not start on {system.NAME} yet.", hint="wherry doctor")
    with ExitStack() as stack:
        lock = _qemu_lock(directory)
        stack.callback(os.close, lock)
        qmp_listener = listener(directory.qmp_socket, stack)
        serial_listener = listener(directory.serial_socket, stack)
        fds = (qmp_listener.fileno(), serial_listener.fileno())
        words = arguments(_boot(directory, config, iso, qemu, accel, token, seed, fds, file_servers, incoming))
        check(words)
        serial = _dial(directory.serial_socket)
        monitor = _dial(directory.qmp_socket)
        process = QemuProcess.start(qemu.program, words, cwd=directory.path, log=directory.qemu_log, pass_fds=fds, lock_fd=lock)
    return _wire(directory, process, monitor, serial, watch, on_event)


def adopt(
    directory: MachineDir, found: Found, watch: Watch, on_event: Callable[[str, dict[str, Any]], None]
) -> Guest | None:  # fmt: skip
    """Take over the QEMU that a keeper left behind; None when nothing leads to it any more.

    Raises NoProgress when it does not answer, though it may later: nothing is done to it; ConnectionLost when it ended.
    """
    try:
        monitor = _dial(directory.qmp_socket)
    except ConnectionLost as error:
        log.warning("%s", error.message)
        return None
    try:
        serial = _dial(directory.serial_socket)
    except WherryError as error:
        monitor.close()
        if isinstance(error, NoProgress):
            raise
        log.warning("%s", error.message)
        return None
    return _wire(directory, Adopted(found), monitor, serial, watch, on_event)


def _qemu_lock(directory: MachineDir) -> int:
    """The lock that QEMU is to inherit. Who looks whether it is taken holds it for a moment: hence several tries."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        lock = host.current().lock(directory.qemu_lock_file, wait=False)
        if lock is not None:
            return lock
        if time.monotonic() > deadline:
            raise Refused(f"a QEMU of machine {directory.name!r} runs already.", hint=directory.repair_hint)
        time.sleep(_LOOKS_EVERY)


def _wire(
    directory: MachineDir, process: Process, monitor: socket.socket, serial: socket.socket, watch: Watch,
    on_event: Callable[[str, dict[str, Any]], None],
) -> Guest:  # fmt: skip
    console = Console(serial, directory.serial_log, watch.on_line, watch.on_byte)
    guest = Guest(process, Qmp(monitor), console)
    console.start()
    guest.watch_exit(watch)
    try:
        guest.qmp.start(on_event, timeout=_GREETS_WITHIN)
    except WherryError as error:
        silent = isinstance(error, NoProgress)
        if silent and not isinstance(process, QemuProcess):  # somebody may have stopped it, and it goes on with its containers
            guest.close()
            raise
        # A QEMU that refuses its arguments or accelerator ends before it greets.
        if process.wait(_QUIT_SECONDS) is None:
            process.kill()
            process.wait()
        guest.close()
        if isinstance(process, QemuProcess):
            said = f"QEMU gave no answer for {_GREETS_WITHIN:g} s and was ended"
            raise (process.failure(said) if silent else process.failure()) from None
        raise
    return guest
