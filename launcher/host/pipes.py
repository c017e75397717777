"""Named pipes of Windows, with as much of a socket's behaviour as the launcher uses; for this user's processes only.

They are in message mode and read as bytes, for their half-close: an empty message is the end of what one side sends, as
docker's own clients and engine have it (go-winio, pipe.go: win32MessageBytePipe). A pipe in byte mode has no such thing.
`_winapi` is what Python's multiprocessing makes its pipes with.
"""

from __future__ import annotations

import contextlib
import importlib
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

from launcher.host import acls
from launcher.host.streams import Listening as Endpoint
from launcher.host.streams import Stream

with contextlib.suppress(ImportError):  # elsewhere this module is only read
    _winapi: Any = importlib.import_module("_winapi")

_DUPLEX: Final = 0x3
_INBOUND: Final = 0x1
_OVERLAPPED: Final = 0x40000000
_FIRST: Final = 0x00080000  # refused when somebody else has made a pipe of that name
_MESSAGES: Final = 0x4
_NO_REMOTE: Final = 0x8
_INSTANCES: Final = 255
_BUFFER: Final = 64 << 10
_READ_WRITE: Final = 0xC0000000
_OPEN_EXISTING: Final = 3
_ANONYMOUS: Final = 0x00100000  # who serves the pipe learns nothing of us (SECURITY_SQOS_PRESENT | SECURITY_ANONYMOUS)
_FOREVER: Final = 0xFFFFFFFF
_PATIENCE: Final = 20.0  # seconds for a server that takes nobody: one that is stopped must not hang every command
_PENDING, _MORE, _ABORTED = 997, 234, 995  # ERROR_IO_PENDING, ERROR_MORE_DATA, ERROR_OPERATION_ABORTED
_NOT_FOUND, _BUSY, _TOO_LATE = 2, 231, 121  # ERROR_FILE_NOT_FOUND, ERROR_PIPE_BUSY, ERROR_SEM_TIMEOUT
_GONE: Final = (109, 232, 233)  # ERROR_BROKEN_PIPE, ERROR_NO_DATA, ERROR_PIPE_NOT_CONNECTED


class NamedPipes:
    """The endpoints of this system."""

    def path(self, folder: Path, name: str, kind: str) -> Path:
        # The folder's name tells machines of different users and homes apart.
        return Path(rf"\\.\pipe\wherry-{name}-{folder.name}-{kind}")

    def address(self, path: Path) -> str:
        return "npipe://" + str(path).replace("\\", "/")

    # Who finds no place in a backlog waits for one; a pipe is not handed on.
    def listen(self, path: Path, backlog: int, made: socket.socket | None = None, *, beside: bool = False) -> Endpoint:  # noqa: ARG002
        return Listening(str(path), beside=beside)

    def connect(self, path: Path, seconds: float | None) -> Stream:
        return connect(str(path), _PATIENCE if seconds is None else seconds)

    def left(self, path: Path) -> bool:  # noqa: ARG002  a pipe goes with the process that made it
        return False


class Pipe:
    """One end of a connection. One thread reads and one writes at a time; any may close or shut down."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._no_reads = _Flag()
        self._no_writes = _Flag()
        self._timeout: float | None = None
        self._ended = False  # the other side sends nothing more
        self._closed = False
        self._reading = threading.Lock()
        self._writing = threading.Lock()

    def settimeout(self, seconds: float | None, /) -> None:
        """For each call from now on, which raises TimeoutError then."""
        self._timeout = seconds

    def recv(self, size: int, /) -> bytes:
        """Empty at the end of what the other side sends, and after a shutdown here."""
        with self._reading:
            if self._ended or self._no_reads.is_set:
                return b""
            try:
                data = self._read(size)
            except OSError as error:
                if error.winerror not in _GONE:  # type: ignore[attr-defined,unused-ignore]
                    raise
                data = b""
            self._ended = not data
            return data

    def sendall(self, data: bytes, /) -> None:
        """Raises OSError when the other side is gone, or after a shutdown here."""
        rest = memoryview(data)
        with self._writing:
            while rest:
                if self._no_writes.is_set:
                    raise BrokenPipeError("the pipe is closed")
                rest = rest[self._write(bytes(rest[:_BUFFER])) :]

    def shutdown(self, how: int, /) -> None:
        """SHUT_WR: the other side reads an end, and may still answer. SHUT_RDWR: who waits here for the pipe hears of it."""
        if how == socket.SHUT_WR:
            with self._writing, contextlib.suppress(OSError):
                if not self._no_writes.is_set:
                    self._write(b"")
        if how != socket.SHUT_WR:
            self._no_reads.set()
        if how != socket.SHUT_RD:
            self._no_writes.set()

    def close(self) -> None:
        """What was sent before can still be read on the other side."""
        self.shutdown(socket.SHUT_RDWR)
        with self._reading, self._writing:
            if not self._closed:
                self._closed = True
                for handle in (self._handle, self._no_reads.handle, self._no_writes.handle):
                    _winapi.CloseHandle(handle)

    def _read(self, size: int) -> bytes:
        overlapped, code = _winapi.ReadFile(self._handle, min(size, _BUFFER), overlapped=True)
        count = self._done(overlapped, code, self._no_reads)
        return bytes(overlapped.getbuffer()[:count]) if count else b""

    def _write(self, data: bytes) -> int:
        overlapped, code = _winapi.WriteFile(self._handle, data, overlapped=True)
        return self._done(overlapped, code, self._no_writes)

    def _done(self, overlapped: Any, code: int, down: _Flag) -> int:
        """Bytes that went over. Raises TimeoutError, and OSError as the system does; 0 after a shutdown here."""
        late = code == _PENDING and not _wait(overlapped, down, self._timeout)
        count, code = overlapped.GetOverlappedResult(True)
        if late and code == _ABORTED and not down.is_set:
            raise TimeoutError("timed out")
        return int(count)


class Listening:
    """A name where this user's processes connect. Raises PermissionError when another program has that name."""

    def __init__(self, name: str, *, inbound: bool = False, beside: bool = False) -> None:
        """`inbound`: one program connects, once, which only sends; it may take the pipe for a file. `beside`: another program
        of this user may listen too."""
        self._name = name
        self._inbound = inbound
        self._down = _Flag()
        self._next = self._first(beside)
        self._accepting = threading.Lock()

    @property
    def in_place(self) -> bool:
        """Whether who opens the name comes to us: nobody can take it away while we listen."""
        return not self._down.is_set

    def accept(self) -> Pipe:
        """The next connection. Raises OSError after `close`."""
        with self._accepting:
            if self._down.is_set or not self._connected():
                raise OSError("nobody listens any more")
            handle = self._next
            # There before the one that came is served, so that the next finds a place to wait at.
            self._next = 0 if self._inbound else self._make(0)
            return Pipe(handle)

    def close(self) -> None:
        """Nobody can connect any more, and who accepts hears of it."""
        self._down.set()
        with self._accepting:
            if self._next:
                _winapi.CloseHandle(self._next)
            self._next = 0

    def _connected(self) -> bool:
        """Somebody is there; False: nobody will be."""
        try:
            overlapped = _winapi.ConnectNamedPipe(self._next, overlapped=True)
        except OSError as error:
            if error.winerror not in _GONE:  # type: ignore[attr-defined,unused-ignore]
                raise
            return True  # it came, and has left already: whoever reads finds the end
        _wait(overlapped, self._down, None)
        return bool(overlapped.GetOverlappedResult(True)[1] != _ABORTED)

    def _first(self, beside: bool) -> int:
        try:
            return self._make(_FIRST)
        except PermissionError:
            if not beside:
                raise
        handle = self._make(0)
        try:
            acls.check_owner(handle, self._name)  # that of the first instance is that of all
        except BaseException:
            _winapi.CloseHandle(handle)
            raise
        return handle

    def _make(self, first: int) -> int:
        direction, kind, count = (_INBOUND, 0, 1) if self._inbound else (_DUPLEX, _MESSAGES, _INSTANCES)
        with acls.attributes() as attributes:
            handle = _winapi.CreateNamedPipe(
                self._name, direction | _OVERLAPPED | first, kind | _NO_REMOTE, count, _BUFFER, _BUFFER, 0, attributes
            )
        return int(handle)


def connect(name: str, seconds: float | None) -> Pipe:
    """To whoever of this user serves the pipe. Raises FileNotFoundError when nobody does, PermissionError when another user,
    TimeoutError when it took nobody for so long."""
    handle = _opened(name, None if seconds is None else time.monotonic() + seconds)
    try:
        acls.check_owner(handle, name)
    except BaseException:
        _winapi.CloseHandle(handle)
        raise
    return Pipe(handle)


def _opened(name: str, deadline: float | None) -> int:
    while True:
        try:
            return int(_winapi.CreateFile(name, _READ_WRITE, 0, 0, _OPEN_EXISTING, _OVERLAPPED | _ANONYMOUS, 0))
        except OSError as error:
            if error.winerror != _BUSY:  # type: ignore[attr-defined,unused-ignore]
                raise
        _free_instance(name, deadline)


def _free_instance(name: str, deadline: float | None) -> None:
    """Wait until the pipe takes somebody; another may be quicker then."""
    left = None if deadline is None else deadline - time.monotonic()
    if left is not None and left <= 0:
        raise TimeoutError(f"{name} takes no connection")
    try:
        _winapi.WaitNamedPipe(name, _milliseconds(left))
    except OSError as error:
        if error.winerror not in (_TOO_LATE, _NOT_FOUND):  # type: ignore[attr-defined,unused-ignore]
            raise  # for the other two, the next look tells


class _Flag:
    """An event of the system, that calls wait for beside their own end."""

    def __init__(self) -> None:
        self.handle = acls.new_event()
        self.is_set = False
        self._changing = threading.Lock()

    def set(self) -> None:
        with self._changing:
            if not self.is_set:
                self.is_set = True
                acls.set_event(self.handle)


def _wait(overlapped: Any, down: _Flag, seconds: float | None) -> bool:
    """Whether it is done; it is cancelled otherwise, also when Ctrl-C ends the wait."""
    done = False
    try:
        handles = [overlapped.event, down.handle]
        done = bool(_winapi.WaitForMultipleObjects(handles, False, _milliseconds(seconds)) == 0)
    finally:
        if not done:
            overlapped.cancel()
    return done


def _milliseconds(seconds: float | None) -> int:
    return _FOREVER if seconds is None else max(1, int(seconds * 1000))
