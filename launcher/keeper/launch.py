"""Starting one QEMU with its channels in place before it runs, and taking over one that runs."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

from launcher import host
from launcher.config import MachineConfig
from launcher.errors import ConnectionLost, MissingOnHost, WherryError
from launcher.images import Iso
from launcher.keeper.console import Console
from launcher.keeper.watch import Watch
from launcher.qemu.command import Boot, UnixListener, arguments
from launcher.qemu.probe import Qemu
from launcher.qemu.process import QemuProcess
from launcher.qemu.qmp import Qmp
from launcher.state import State, process_is
from launcher.store import MachineDir

_QUIT_SECONDS: Final = 10


class Process(Protocol):
    """A QEMU: our child, or one that an earlier keeper started."""

    @property
    def pid(self) -> int: ...
    @property
    def start_time(self) -> float: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int | None: ...
    def kill(self) -> None: ...


class Adopted:
    """A QEMU that is not our child; its exit code cannot be known and counts as 0."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.pid = pid
        self.start_time: float = self._process.create_time()

    def poll(self) -> int | None:
        return None if self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE else 0

    def wait(self, timeout: float | None = None) -> int | None:
        try:
            self._process.wait(timeout)
        except psutil.TimeoutExpired:
            return None
        return 0

    def kill(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self._process.kill()


@dataclass
class Guest:
    """One running QEMU and the channels to it."""

    process: Process
    qmp: Qmp
    console: Console

    def watch_exit(self, watch: Watch) -> None:
        """Tell `watch` when QEMU ends, after the last byte of the console was read."""

        def wait() -> None:
            code = self.process.wait()
            self.console.join(5)
            watch.on_exit(code or 0)

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


def _listener(path: Path, stack: ExitStack) -> socket.socket:
    """A listening socket that QEMU inherits: it is there before QEMU is, so nobody waits for it to appear."""
    path.unlink(missing_ok=True)
    listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    listening.bind(str(path))
    path.chmod(0o600)
    listening.listen(4)
    return listening


def _dial(path: Path) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.connect(str(path))
    except OSError as error:
        stream.close()
        raise ConnectionLost(f"QEMU does not answer at {path}: {error}") from error
    return stream


def _boot(
    directory: MachineDir, config: MachineConfig, iso: Iso, qemu: Qemu, accel: str, token: str,
    seed: tuple[tuple[str, str], ...], channels: tuple[int, int],
) -> Boot:  # fmt: skip
    offset, size = iso.root_extent()
    return Boot(
        name=directory.name, token=token, arch=config.arch, cpus=config.cpus, memory=config.memory, accel=accel,
        kernel=os.fspath(iso.kernel()), initrd=os.fspath(iso.initrd()), iso=os.fspath(iso.path),
        root_offset=offset, root_size=size, data_disk=directory.data_disk.name, seed=seed,
        qmp=UnixListener(channels[0]), serial=UnixListener(channels[1]), version=qemu.version, sandbox=qemu.sandbox,
    )  # fmt: skip


def launch(
    directory: MachineDir, config: MachineConfig, iso: Iso, qemu: Qemu, accel: str, token: str,
    seed: tuple[tuple[str, str], ...], watch: Watch, on_event: Callable[[str, dict[str, Any]], None],
) -> Guest:  # fmt: skip
    """Start QEMU on one rung of the ladder. Raises LaunchFailed when it ends at once, Refused when one runs already."""
    system = host.current()
    if system.ENDPOINT != "unix":
        raise MissingOnHost(f"machines do not start on {system.NAME} yet.")
    with ExitStack() as stack:
        lock = system.lock(directory.qemu_lock_file, wait=False)
        if lock is None:
            raise WherryError(f"a QEMU of machine {directory.name!r} runs already.", hint="wherry stop --force")
        stack.callback(os.close, lock)
        qmp_listener = _listener(directory.qmp_socket, stack)
        serial_listener = _listener(directory.serial_socket, stack)
        fds = (qmp_listener.fileno(), serial_listener.fileno())
        boot = _boot(directory, config, iso, qemu, accel, token, seed, fds)
        serial = _dial(directory.serial_socket)
        monitor = _dial(directory.qmp_socket)
        process = QemuProcess.start(
            qemu.program, arguments(boot), cwd=directory.path, log=directory.qemu_log, pass_fds=fds, lock_fd=lock
        )
    return _wire(directory, process, monitor, serial, watch, on_event)


def adopt(directory: MachineDir, state: State, watch: Watch, on_event: Callable[[str, dict[str, Any]], None]) -> Guest:
    """Take over the QEMU that a keeper left behind. Raises WherryError when it is not the one that state.json names."""
    if not process_is(state.qemu_pid, state.qemu_start, state.token):
        raise WherryError(
            f"a QEMU runs for machine {directory.name!r}, but not the one in state.json.",
            hint=f"wherry stop --force {directory.name}",
        )
    process = Adopted(state.qemu_pid)
    return _wire(directory, process, _dial(directory.qmp_socket), _dial(directory.serial_socket), watch, on_event)


def _wire(
    directory: MachineDir, process: Process, monitor: socket.socket, serial: socket.socket, watch: Watch,
    on_event: Callable[[str, dict[str, Any]], None],
) -> Guest:  # fmt: skip
    console = Console(serial, directory.serial_log, watch.on_line, watch.on_byte)
    guest = Guest(process, Qmp(monitor), console)
    console.start()
    guest.watch_exit(watch)
    try:
        guest.qmp.start(on_event)
    except WherryError:
        # A QEMU that refuses its arguments or accelerator ends before it greets.
        if process.wait(_QUIT_SECONDS) is None:
            process.kill()
            process.wait()
        guest.close()
        if isinstance(process, QemuProcess):
            raise process.failure() from None
        raise
    return guest
