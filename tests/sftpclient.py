"""A client that speaks SFTP packet by packet, for tests of the server: it sends what it is told, good or bad."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from launcher.sftp.served import Tree
from launcher.sftp.session import Session
from launcher.sftp.watched import Watched

INIT, VERSION, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
OPENDIR, READDIR, REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = 11, 12, 13, 14, 15, 16, 17, 18, 19, 20
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED, REPLY = 101, 102, 103, 104, 105, 200, 201

R, W, APPEND, CREAT, TRUNC, EXCL = 1, 2, 4, 8, 16, 32
HANG_SECONDS = 60  # a guard, not an expectation


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


def s(text: bytes) -> bytes:
    return u32(len(text)) + text


def attrs(
    *,
    size: int | None = None,
    uid: int | None = None,
    gid: int = 0,
    mode: int | None = None,
    times: tuple[int, int] | None = None,
    fine: tuple[int, int, int, int] | None = None,
) -> bytes:
    """ATTRS of a request; `times` are atime and mtime in seconds, `fine` the four fields of time@wherry."""
    flags, out = 0, b""
    if size is not None:
        flags, out = flags | 1, out + u64(size)
    if uid is not None:
        flags, out = flags | 2, out + u32(uid) + u32(gid)
    if mode is not None:
        flags, out = flags | 4, out + u32(mode)
    if times is not None:
        flags, out = flags | 8, out + u32(times[0]) + u32(times[1])
    if fine is not None:
        flags, out = flags | 0x80000000, out + u32(1) + s(b"time@wherry") + s(struct.pack(">qIqI", *fine))
    return u32(flags) + out


class Failed(Exception):
    """A STATUS that is not OK. `errno` is Linux's, `watched` whether the flag is set; both 0 from plain version 3."""

    def __init__(self, code: int, errno: int, watched: int) -> None:
        super().__init__(f"code {code}, errno {errno}, watched {watched}")
        self.code, self.errno, self.watched = code, errno, watched


class Shown(NamedTuple):
    """ATTRS of an answer; what is behind `mtime` is None without stat@wherry."""

    size: int
    uid: int
    gid: int
    mode: int
    atime: int
    mtime: int
    ino: int | None = None
    nlink: int | None = None
    watched: int | None = None
    blocks: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None


class Opened(NamedTuple):
    handle: bytes
    shown: Shown
    data: bytes | None  # None: not whole


class Fields:
    """The fields of an answer, from the front; struct.error or an assertion when it is shorter."""

    def __init__(self, body: bytes) -> None:
        self.body, self.at = body, 0

    def take(self, layout: str) -> Any:
        values = struct.unpack_from(">" + layout, self.body, self.at)
        self.at += struct.calcsize(">" + layout)
        return values if len(values) > 1 else values[0]

    def string(self) -> bytes:
        size = self.take("I")
        assert self.at + size <= len(self.body)
        self.at += size
        return self.body[self.at - size : self.at]

    def attrs(self) -> Shown:
        flags = self.take("I")
        if not flags:
            return Shown(0, 0, 0, 0, 0, 0)
        assert flags & 0x7FFFFFFF == 15
        plain = self.take("QIIIII")
        if not flags & 0x80000000:
            return Shown(*plain)
        assert self.take("I") == 1 and self.string() == b"stat@wherry"
        ino, nlink, watched, blocks, a, an, m, mn, c, cn = Fields(self.string()).take("QIIQqIqIqI")
        return Shown(*plain, ino, nlink, watched, blocks, a * 10**9 + an, m * 10**9 + mn, c * 10**9 + cn)

    def end(self) -> None:
        assert self.at == len(self.body), "the answer is longer than its fields"


class RawClient:
    """Requests one after the other; or `send` several and `wait` for each. `stream` has recv and sendall. For one thread."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.ident = 0
        self.wherry = False
        self._data = bytearray()
        self._answers: dict[int, tuple[int, bytes]] = {}

    def init(self, wherry: bool = True) -> dict[bytes, bytes]:
        """INIT and VERSION; the pairs of the server."""
        self.wherry = wherry
        body = u32(3) + (s(b"wherry@wherry") + s(b"1") if wherry else b"")
        self.stream.sendall(u32(len(body) + 1) + bytes((INIT,)) + body)
        answer = self.packet()
        assert answer[0] == VERSION
        fields, pairs = Fields(answer[1:]), {}
        assert fields.take("I") == 3
        while fields.at < len(fields.body):
            name = fields.string()
            pairs[name] = fields.string()
        return pairs

    def packet(self) -> bytes:
        """The next one, without its length. Raises EOFError."""
        data = self._data
        while len(data) < 4 or len(data) < 4 + struct.unpack_from(">I", data)[0]:
            chunk = self.stream.recv(1 << 18)
            if not chunk:
                raise EOFError
            data += chunk
        size = 4 + struct.unpack_from(">I", data)[0]
        found = bytes(data[4:size])
        del data[:size]
        return found

    def packed(self, kind: int, payload: bytes) -> bytes:
        """A request as it is sent; its id is `ident`."""
        self.ident += 1
        return u32(len(payload) + 5) + bytes((kind,)) + u32(self.ident) + payload

    def send(self, kind: int, payload: bytes) -> int:
        self.stream.sendall(self.packed(kind, payload))
        return self.ident

    def wait(self, ident: int) -> tuple[int, bytes]:
        """The answer to one request, in whatever order they come: type and what is behind the id."""
        while ident not in self._answers:
            self.any()
        return self._answers.pop(ident)

    def any(self) -> int:
        """The id of the next answer, which `wait` gives."""
        packet = self.packet()
        ident: int = struct.unpack_from(">I", packet, 1)[0]
        self._answers[ident] = packet[0], packet[5:]
        return ident

    def request(self, kind: int, payload: bytes) -> tuple[int, bytes]:
        return self.wait(self.send(kind, payload))

    def extended(self, name: bytes, payload: bytes = b"") -> tuple[int, bytes]:
        return self.request(EXTENDED, s(name) + payload)

    def status(self, answer: tuple[int, bytes]) -> Failed:
        """The STATUS that this must be."""
        kind, body = answer
        assert kind == STATUS, f"type {kind}"
        fields = Fields(body)
        code = fields.take("I")
        fields.string(), fields.string()
        errno, flags = fields.take("II") if self.wherry else (0, 0)
        fields.end()
        return Failed(code, errno, flags)

    def expect(self, kind: int, answer: tuple[int, bytes]) -> Fields:
        """The fields of an answer of this type. Raises Failed for a STATUS."""
        if answer[0] == STATUS and kind != STATUS:
            raise self.status(answer)
        assert answer[0] == kind, f"type {answer[0]}"
        return Fields(answer[1])

    def ok(self, answer: tuple[int, bytes]) -> None:
        """Raises Failed."""
        found = self.status(answer)
        if found.code:
            raise found

    def open(self, path: bytes, pflags: int = R, change: bytes = u32(0)) -> bytes:
        return self.expect(HANDLE, self.request(OPEN, s(path) + u32(pflags) + change)).string()

    def open_whole(self, path: bytes, pflags: int = R, most: int = 65536, change: bytes = u32(0)) -> Opened:
        fields = self.expect(REPLY, self.extended(b"open@wherry", s(path) + u32(pflags) + change + u32(most)))
        handle, shown, whole, data = fields.string(), fields.attrs(), fields.take("B"), fields.string()
        fields.end()
        assert whole or not data
        return Opened(handle, shown, data if whole else None)

    def close(self, handle: bytes) -> None:
        self.ok(self.request(CLOSE, s(handle)))

    def read(self, handle: bytes, offset: int, size: int) -> bytes:
        """Raises Failed, with code 1 at the end."""
        return self.expect(DATA, self.request(READ, s(handle) + u64(offset) + u32(size))).string()

    def write(self, handle: bytes, offset: int, data: bytes) -> None:
        self.ok(self.request(WRITE, s(handle) + u64(offset) + s(data)))

    def lstat(self, path: bytes, kind: int = LSTAT) -> Shown:
        return self.expect(ATTRS, self.request(kind, s(path))).attrs()

    def fstat(self, handle: bytes) -> Shown:
        return self.lstat(handle, FSTAT)

    def list(self, path: bytes, most: int = 1 << 17) -> dict[bytes, Shown]:
        """All of a folder, by list@wherry, page by page."""
        found: dict[bytes, Shown] = {}
        handle = b""
        while True:
            fields = self.expect(REPLY, self.extended(b"list@wherry", s(b"" if handle else path) + s(handle) + u32(most)))
            handle = fields.string()
            for _ in range(fields.take("I")):
                name = fields.string()
                assert name not in found
                found[name] = fields.attrs()
            fields.end()
            if not handle:
                return found

    def readdir(self, path: bytes) -> dict[bytes, Shown]:
        """All of a folder, as version 3 does it."""
        handle = self.expect(HANDLE, self.request(OPENDIR, s(path))).string()
        found: dict[bytes, Shown] = {}
        while (answer := self.request(READDIR, s(handle)))[0] == NAME:
            fields = Fields(answer[1])
            for _ in range(fields.take("I")):
                name = fields.string()
                fields.string()
                found[name] = fields.attrs()
        assert self.status(answer).code == 1
        self.close(handle)
        return found

    def name(self, answer: tuple[int, bytes]) -> bytes:
        """The one name of READLINK and REALPATH."""
        fields = self.expect(NAME, answer)
        assert fields.take("I") == 1
        return fields.string()

    def events(self, answer: tuple[int, bytes]) -> Sequence[tuple[int, int, bytes, bytes]]:
        fields = self.expect(REPLY, answer)
        found = [(*fields.take("BB"), fields.string(), fields.string()) for _ in range(fields.take("I"))]
        fields.end()
        return found


def packet(kind: int, payload: bytes, ident: int = 1) -> bytes:
    return u32(len(payload) + 5) + bytes((kind,)) + u32(ident) + payload


# INIT of one who knows our extensions.
HELLO = u32(5 + 22) + bytes((INIT,)) + u32(3) + s(b"wherry@wherry") + s(b"1")


class Feed:
    """A stream of these chunks, one a recv, and then the end. What is sent is kept."""

    def __init__(self, chunks: Iterator[bytes] | list[bytes], on_send: Callable[[bytes], None] = lambda _: None) -> None:
        self.chunks = iter(chunks)
        self.taken = 0
        self.sent: list[bytes] = []
        self.on_send = on_send

    def recv(self, size: int) -> bytes:
        self.taken += 1
        return next(self.chunks, b"")

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)
        self.on_send(data)


@contextlib.contextmanager
def served(tree: Tree, watched: Watched | None = None) -> Iterator[tuple[socket.socket, Session]]:
    """The client's end of a session that runs in this process; it has ended, with all of its threads, behind the `with`."""
    ours, theirs = socket.socketpair()
    ours.settimeout(HANG_SECONDS)
    session = Session(theirs, tree, watched=watched)
    thread = threading.Thread(target=session.serve, name="sftp-session")
    thread.start()
    try:
        yield ours, session
    finally:
        ours.close()
        thread.join(HANG_SECONDS)
        theirs.close()
        assert not thread.is_alive(), "the session has not ended with its stream"
