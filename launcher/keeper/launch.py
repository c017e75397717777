"""Starting one QEMU with its channels in place before it runs, and taking over one that runs."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

from launcher import host, identity
from launcher.config import MachineConfig
from launcher.errors import ConnectionLost, NoProgress, WherryError
from launcher.identity import Found
from launcher.images import Iso
from launcher.keeper import channels
from launcher.keeper.channels import Channels, Line
from launcher.keeper.console import Console
from launcher.keeper.watch import Watch
from launcher.qemu import qmp
from launcher.qemu.command import Boot, FileServer, arguments
from launcher.qemu.probe import Qemu
from launcher.qemu.process import QemuProcess
from launcher.qemu.qmp import Qmp
from launcher.store import MachineDir

log = logging.getLogger("wherry.keeper")

_QUIT_SECONDS: Final = 10
_GREETS_WITHIN: Final = 60.0  # seconds
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


def _boot(
    directory: MachineDir, config: MachineConfig, iso: Iso, qemu: Qemu, accel: str, token: str,
    seed: tuple[tuple[str, str], ...], ways: Channels, file_servers: tuple[FileServer, ...], incoming: bool,
) -> Boot:  # fmt: skip
    offset, size = iso.root_extent()
    disk = directory.suspended_disk if incoming else directory.data_disk

    def told(path: Path) -> str:
        return host.current().told_path(path, directory.path)

    return Boot(
        name=directory.name, token=token, arch=config.arch, cpus=config.cpus, memory=config.memory, accel=accel,
        kernel=told(iso.kernel()), initrd=told(iso.initrd()), iso=told(iso.path),
        root_offset=offset, root_size=size, data_disk=disk.name, seed=seed,
        qmp=ways.monitor, serial=ways.serial, version=qemu.version, sandbox=qemu.sandbox,
        file_servers=file_servers, incoming=incoming, data_folder=told(qemu.data_folder) if qemu.data_folder else "",
    )  # fmt: skip


def launch(
    directory: MachineDir, config: MachineConfig, iso: Iso, qemu: Qemu, accel: str, token: str,
    seed: tuple[tuple[str, str], ...], watch: Watch, on_event: Callable[[str, dict[str, Any]], None],
    file_servers: tuple[FileServer, ...] = (), *, incoming: bool = False,
    check: Callable[[Sequence[str]], None] = lambda _words: None,
) -> Guest:  # fmt: skip
    """Start QEMU on one rung of the ladder; `incoming`: with the disk of a suspended machine, to wait for its memory.

    Raises MissingOnHost when the system does not start it, LaunchFailed when it ends at once, Refused when one runs already,
    and what `check` raises of its command line.
    """
    with ExitStack() as stack:
        ways = channels.made(directory, stack)
        words = arguments(_boot(directory, config, iso, qemu, accel, token, seed, ways, file_servers, incoming))
        check(words)
        process, monitor, serial = ways.start(qemu.program, words)
    return _wire(directory, process, monitor, serial, watch, on_event)


def adopt(
    directory: MachineDir, found: Found, watch: Watch, on_event: Callable[[str, dict[str, Any]], None]
) -> Guest | None:  # fmt: skip
    """Take over the QEMU that a keeper left behind; None when nothing leads to it any more.

    Raises NoProgress when it does not answer, though it may later: nothing is done to it; ConnectionLost when it ended.
    """
    try:
        monitor = channels.dial(directory.qmp_socket)
    except ConnectionLost as error:
        log.warning("%s", error.message)
        return None
    try:
        serial = channels.dial(directory.serial_socket)
    except WherryError as error:
        monitor.close()
        if isinstance(error, NoProgress):
            raise
        log.warning("%s", error.message)
        return None
    return _wire(directory, Adopted(found), monitor, serial, watch, on_event)


def _wire(
    directory: MachineDir, process: Process, monitor: socket.socket | qmp.Stream, serial: Line, watch: Watch,
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
