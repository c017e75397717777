"""The guest's serial console: every byte goes to a bounded log, every line to a listener."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from launcher.keeper.channels import Line

log = logging.getLogger("wherry.keeper.console")

LARGEST_LOG: Final = 2 << 20  # bytes; the same again in FILE.1
_LONGEST_LINE: Final = 4096  # bytes; a guest cannot make the keeper hold more


class BoundedLog:
    """A log file of at most LARGEST_LOG bytes; what was before is in FILE.1. Nothing it does stops the caller."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._size = self._file.tell()

    def write(self, data: bytes) -> None:
        try:
            if self._size + len(data) > LARGEST_LOG:
                self._file.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = self._path.open("ab", buffering=0)
                self._size = 0
            self._file.write(data)
            self._size += len(data)
        except (OSError, ValueError) as error:  # a full disk must not silence the guest
            log.warning("console log: %s", error)

    def close(self) -> None:
        self._file.close()


class Console:
    """Reads the serial line of one QEMU until it ends, in a thread of its own."""

    def __init__(self, stream: Line, path: Path, on_line: Callable[[str], None], on_byte: Callable[[], None]) -> None:
        self._stream = stream
        self._log = BoundedLog(path)
        self._on_line = on_line
        self._on_byte = on_byte
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait until the last byte is read; it is when QEMU has ended."""
        self._thread.join(timeout)

    def close(self) -> None:
        """Stop reading, as when QEMU is given up."""
        try:
            self._stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join(5)
        self._stream.close()

    def _run(self) -> None:
        pending = b""
        while True:
            try:
                data = self._stream.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            self._log.write(data)
            self._on_byte()
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                self._on_line(line[:_LONGEST_LINE].decode("ascii", "replace").strip("\r"))
            pending = pending[-_LONGEST_LINE:]
        self._log.close()


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            text = file.read().decode("ascii", "replace")
    except OSError:
        return ""
    return "\n".join(line.rstrip("\r") for line in text.splitlines()[-lines:])
