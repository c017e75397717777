"""SFTP version 3 (draft-ietf-secsh-filexfer-02) as a hostile client may speak it: packets are made by hand, nothing is checked.

Needs nothing but Python 3.9 and runs as it is in a container. What comes is looked through for a marker that must never come.
"""

from __future__ import annotations

import socket
import struct

INIT, VERSION, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR, REMOVE, MKDIR, RMDIR = range(1, 16)
REALPATH, STAT, RENAME, READLINK, SYMLINK = 16, 17, 18, 19, 20
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED, EXTENDED_REPLY = 101, 102, 103, 104, 105, 200, 201
R, W, APPEND, CREAT, TRUNC, EXCL = 1, 2, 4, 8, 16, 32
SIZE, OWNER, MODE, TIMES, MORE = 1, 2, 4, 8, 0x80000000
EOF = 1


class Refused(Exception):
    """The server said no: its code of version 3, and the errno behind it, 0 when it told none."""

    def __init__(self, code: int, number: int, text: bytes) -> None:
        super().__init__(f"status {code}, errno {number}: {text[:80]!r}")
        self.code, self.number = code, number


class Ended(Exception):
    """The server closed the connection."""


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def attrs(size: int | None = None, mode: int | None = None, owner: tuple[int, int] | None = None) -> bytes:
    flags, fields = 0, b""
    if size is not None:
        flags, fields = flags | SIZE, fields + struct.pack(">Q", size)
    if owner is not None:
        flags, fields = flags | OWNER, fields + struct.pack(">II", *owner)
    if mode is not None:
        flags, fields = flags | MODE, fields + struct.pack(">I", mode)
    return struct.pack(">I", flags) + fields


class Speaker:
    """One connection. `leaks` holds what was asked when the marker came."""

    def __init__(self, stream: socket.socket, marker: bytes, *, wherry: bool = True, timeout: float = 30) -> None:
        self.stream, self.marker, self.leaks = stream, marker, list[str]()
        self.answered = 0
        self._id, self._left = 0, b""
        stream.settimeout(timeout)
        self.send(struct.pack(">BI", INIT, 3) + (string(b"wherry@wherry") + string(b"1") if wherry else b""))
        kind, body = self.receive("INIT")
        assert kind == VERSION, kind
        self.extensions = body

    def send(self, packet: bytes) -> None:
        self.raw(string(packet))

    def raw(self, data: bytes) -> None:
        try:
            self.stream.sendall(data)
        except (BrokenPipeError, ConnectionError) as error:
            raise Ended(str(error)) from None

    def receive(self, asked: str) -> tuple[int, bytes]:
        """The next packet, whatever it answers: its type and what comes behind that."""
        (length,) = struct.unpack(">I", self._exactly(4))
        assert 0 < length <= 300_000, f"a packet of {length} bytes"
        packet = self._exactly(length)
        if self.marker in packet:
            self.leaks.append(asked)
        self.answered += 1
        return packet[0], packet[1:]

    def _exactly(self, count: int) -> bytes:
        while len(self._left) < count:
            try:
                data = self.stream.recv(1 << 18)
            except ConnectionError as error:
                raise Ended(str(error)) from None
            if not data:
                raise Ended("end of stream")
            self._left += data
        data, self._left = self._left[:count], self._left[count:]
        return data

    def later(self, kind: int, body: bytes) -> int:
        """Sends a request and waits for nothing; its id."""
        self._id += 1
        self.send(struct.pack(">BI", kind, self._id) + body)
        return self._id

    def ask(self, kind: int, body: bytes, what: str = "") -> tuple[int, bytes]:
        """One request and its answer; a status that is not OK is raised."""
        asked = self.later(kind, body)
        while True:
            answer, rest = self.receive(what or f"request {kind} {body[:120]!r}")
            if struct.unpack(">I", rest[:4])[0] == asked:
                break
        if answer == STATUS:
            code, length = struct.unpack(">II", rest[4:12])
            text, behind = rest[12 : 12 + length], rest[12 + length :]
            behind = behind[4 + struct.unpack(">I", behind[:4])[0] :] if len(behind) >= 4 else b""
            number = struct.unpack(">I", behind[:4])[0] if len(behind) >= 4 else 0
            if code:
                raise Refused(code, number, text)
        return answer, rest[4:]

    def _handle(self, kind: int, body: bytes, what: str) -> bytes:
        answer, rest = self.ask(kind, body, what)
        assert answer == HANDLE, answer
        return rest[4:]

    def open(self, path: bytes, flags: int = R, attributes: bytes = bytes(4)) -> bytes:
        return self._handle(OPEN, string(path) + struct.pack(">I", flags) + attributes, f"open {path[:80]!r}")

    def close(self, handle: bytes) -> None:
        self.ask(CLOSE, string(handle), "close")

    def read(self, handle: bytes, offset: int = 0, count: int = 4096) -> bytes:
        try:
            _, rest = self.ask(READ, string(handle) + struct.pack(">QI", offset, count), "read")
        except Refused as reason:
            if reason.code == EOF:
                return b""
            raise
        return rest[4:]

    def write(self, handle: bytes, data: bytes, offset: int = 0) -> None:
        self.ask(WRITE, string(handle) + struct.pack(">Q", offset) + string(data), "write")

    def content(self, path: bytes) -> bytes:
        handle = self.open(path)
        try:
            return self.read(handle)
        finally:
            self.close(handle)

    def put(self, path: bytes, data: bytes, flags: int = W | CREAT | TRUNC, attributes: bytes = bytes(4)) -> None:
        handle = self.open(path, flags, attributes)
        try:
            self.write(handle, data)
        finally:
            self.close(handle)

    def touch(self, path: bytes, flags: int = R, attributes: bytes = bytes(4)) -> None:
        self.close(self.open(path, flags, attributes))

    def names(self, path: bytes) -> list[bytes]:
        handle, found = self._handle(OPENDIR, string(path), f"opendir {path[:80]!r}"), list[bytes]()
        try:
            while True:
                _, rest = self.ask(READDIR, string(handle), f"readdir {path[:80]!r}")
                found += _names(rest)
        except Refused as reason:
            if reason.code != EOF:
                raise
        self.close(handle)
        return [name for name in found if name not in (b".", b"..")]

    def call(self, name: bytes, body: bytes) -> tuple[int, bytes]:
        return self.ask(EXTENDED, string(name) + body, f"{name.decode()} {body[:120]!r}")

    def path(self, kind: int, path: bytes, more: bytes = b"") -> bytes:
        """STAT, LSTAT, MKDIR and such: a path, and what is behind it."""
        return self.ask(kind, string(path) + more, f"request {kind} {path[:80]!r}")[1]

    def readlink(self, path: bytes) -> bytes:
        return _names(self.path(READLINK, path))[0]

    def rename(self, old: bytes, new: bytes, *, replace: bool = False) -> None:
        if replace:
            self.call(b"posix-rename@openssh.com", string(old) + string(new))
        else:
            self.ask(RENAME, string(old) + string(new), f"rename {old!r} {new!r}")

    def symlink(self, target: bytes, path: bytes) -> None:
        self.ask(SYMLINK, string(target) + string(path), "symlink")

    def link(self, old: bytes, new: bytes) -> None:
        self.call(b"hardlink@openssh.com", string(old) + string(new))


def _names(rest: bytes) -> list[bytes]:
    (count,), at, found = struct.unpack(">I", rest[:4]), 4, []
    for _ in range(count):
        (length,) = struct.unpack(">I", rest[at : at + 4])
        found.append(rest[at + 4 : at + 4 + length])
        at += 4 + length
        (length,) = struct.unpack(">I", rest[at : at + 4])
        at += 4 + length
        at += _attrs_length(rest[at:])
    return found


def _attrs_length(data: bytes) -> int:
    (flags,), length = struct.unpack(">I", data[:4]), 4
    for bit, size in ((SIZE, 8), (OWNER, 8), (MODE, 4), (TIMES, 8)):
        length += size if flags & bit else 0
    if flags & MORE:
        (count,) = struct.unpack(">I", data[length : length + 4])
        length += 4
        for _ in range(2 * count):
            length += 4 + struct.unpack(">I", data[length : length + 4])[0]
    return length
