"""The guest's file system for shares, mounted here, and a server of the keeper's for it: no guest is needed for either."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from launcher.sftp.session import Session
from launcher.sftp.stat import Stat
from launcher.sftp.watched import Watched
from tests.sftptree import PlainTree

from .helpers import helper

CHECKED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
NAMES = {
    3: "open", 4: "close", 5: "read", 6: "write", 7: "lstat", 8: "fstat", 9: "setstat", 10: "fsetstat", 13: "remove",
    14: "mkdir", 15: "rmdir", 17: "stat", 18: "rename", 19: "readlink", 20: "symlink",
}  # fmt: skip


def needs_fuse() -> None:
    if not Path("/dev/fuse").exists() or os.geteuid() != 0:
        pytest.skip("needs root and /dev/fuse")


class Everything:
    """Says that all folders are watched; who uses it has to push each change that the guest has not made."""

    def folder(self, path: bytes) -> bool:
        return True

    def made(self, path: bytes, stat: Stat | None) -> None:
        pass


class Counted:
    """One end of the connection, which counts what is asked. One thread reads it."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.asked: Counter[str] = Counter()
        self.bytes = 0
        self.arrivals = 0
        self.sends = 0
        self._rest = b""

    def recv(self, size: int) -> bytes:
        data = self.end.recv(size)
        self._count(data)
        return data

    def recv_into(self, room: Any) -> int:
        size = self.end.recv_into(room)
        self._count(bytes(memoryview(room)[:size]))
        return size

    def sendall(self, data: bytes) -> None:
        self.sends += 1
        self.end.sendall(data)

    def _count(self, data: bytes) -> None:
        self.arrivals += 1
        self.bytes += len(data)
        self._rest += data
        while len(self._rest) >= 13:
            (size,) = struct.unpack_from(">I", self._rest)
            if len(self._rest) < 4 + size:
                return
            packet, self._rest = self._rest[4 : 4 + size], self._rest[4 + size :]
            self.asked[self._name(packet)] += 1

    def _name(self, packet: bytes) -> str:
        if packet[0] != 200:
            return NAMES.get(packet[0], str(packet[0]))
        (size,) = struct.unpack_from(">I", packet, 5)
        return packet[9 : 9 + size].split(b"@")[0].decode()


class Server:
    """A connection to the mount, as the keeper makes them."""

    def __init__(self, place: Path, host: Path, watched: Watched | None) -> None:
        self.end = dial(place)
        self.stream = Counted(self.end)
        self.session = Session(self.stream, PlainTree(host), watched=watched)
        self._thread = threading.Thread(target=self.session.serve)
        self._thread.start()

    def close(self) -> None:
        try:
            self.end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join()
        self.end.close()


class Mount:
    """`path` is what the guest sees of `host`."""

    def __init__(self, folder: Path, program: Path, mode: str = "rw", aliases: int = 0) -> None:
        self.host, self.path, self.run = folder / "host", folder / "guest", folder / "run"
        self.host.mkdir(exist_ok=True)
        self.run.mkdir(exist_ok=True)
        self.aliases = [folder / f"alias{number}" for number in range(aliases)]
        self.socket = self.run / "shares" / "home"
        self.server: Server | None = None
        environment = os.environ | {
            "WHERRY_RUN": str(self.run),
            "ASAN_OPTIONS": "exitcode=99",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        self.process = subprocess.Popen([program, "home", mode, self.path, *self.aliases], env=environment)
        mark = self.run / "shares" / "home.mounted"
        wait_for(mark.exists)

    def serve(self, watched: Watched | None = None) -> Server:
        before = self.server
        self.server = Server(self.socket, self.host, watched)
        if before is not None:
            before.close()
        return self.server

    def lose(self) -> None:
        if self.server is not None:
            self.server.close()
        self.server = None

    def stop(self) -> None:
        """With the end of the file system's process, which has to be a good one."""
        try:
            self.process.send_signal(signal.SIGTERM)
            code = self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.lose()
            for place in (*self.aliases, self.path):
                subprocess.run(["umount", "-l", place], stderr=subprocess.DEVNULL, check=False)
        assert code == 0


def dial(place: Path) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    end.connect(str(place))
    return end


def wait_for(condition: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come in time"
        time.sleep(0.01)


@contextmanager
def mounted(folder: Path, *flags: str, mode: str = "rw", aliases: int = 0, serve: bool = True) -> Iterator[Mount]:
    needs_fuse()
    mount = Mount(folder, helper("share", *flags), mode, aliases)
    try:
        if serve:
            mount.serve()
        yield mount
    finally:
        mount.stop()


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Mount]:
    """With the checks of the compiler."""
    with mounted(tmp_path, *CHECKED) as mount:
        yield mount
