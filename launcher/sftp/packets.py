"""Packets and their fields (draft-ietf-secsh-filexfer-02, 3 and 4). Every length is compared before it is used."""

from __future__ import annotations

import errno
from struct import Struct, error
from typing import Final, Protocol

MOST_DATA: Final = 262_144
MOST: Final = MOST_DATA + 1_024  # bytes of a packet behind its length
MOST_PATH: Final = 4_096
MOST_NAME: Final = 255

_U32: Final = Struct(">I")
_U64: Final = Struct(">Q")
_HEAD: Final = Struct(">IBI")
# Of one recv. A packet of 128 KB comes in one or two, and what is not filled is given back.
_RECV: Final = 256 << 10

u32 = _U32.pack
u64 = _U64.pack


class Malformed(Exception):
    """What came is no packet of this protocol; the connection ends."""


class Stream(Protocol):
    """Bytes in both directions; a socket and a channel are one. Both raise OSError or EOFError when it has broken."""

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> object: ...


def string(text: bytes) -> bytes:
    return _U32.pack(len(text)) + text


def head(kind: int, ident: int, size: int) -> bytes:
    """What is before `size` bytes of an answer: length, type, id."""
    return _HEAD.pack(size + 5, kind, ident)


class Reader:
    """The fields of one packet, from the front. Raises Malformed where one does not fit into it."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data = data
        self.at = at
        self.end = end

    def byte(self) -> int:
        at = self.at
        if at >= self.end:
            raise Malformed("a byte is missing")
        self.at = at + 1
        return self.data[at]

    def u32(self) -> int:
        at = self.at
        if at + 4 > self.end:
            raise Malformed("a number is missing")
        self.at = at + 4
        value: int = _U32.unpack_from(self.data, at)[0]
        return value

    def u64(self) -> int:
        at = self.at
        if at + 8 > self.end:
            raise Malformed("a long number is missing")
        self.at = at + 8
        value: int = _U64.unpack_from(self.data, at)[0]
        return value

    def fields(self, layout: Struct) -> tuple[int, ...]:
        at = self.at
        if at + layout.size > self.end:
            raise Malformed("numbers are missing")
        self.at = at + layout.size
        return layout.unpack_from(self.data, at)

    def _span(self) -> tuple[int, int]:
        at = self.at + 4
        if at > self.end:
            raise Malformed("a length is missing")
        end = at + int(_U32.unpack_from(self.data, at - 4)[0])
        if end > self.end:
            raise Malformed("a string is longer than its packet")
        self.at = end
        return at, end

    def string(self) -> bytes:
        at, end = self._span()
        return self.data[at:end]

    def view(self) -> memoryview:
        """As `string`, of bytes that are not copied."""
        at, end = self._span()
        return memoryview(self.data)[at:end]

    def handle(self) -> bytes:
        """At most 256 bytes (7 of the draft)."""
        text = self.string()
        if len(text) > 256:
            raise Malformed("a handle is too long")
        return text

    def path(self) -> bytes:
        """A clean absolute path: no `.`, no doubled or last slash. Raises OSError: EINVAL, ENAMETOOLONG."""
        text = self.string()
        # What the guest sends is clean already.
        if len(text) <= MOST_NAME and text[:1] == b"/" and b"/." not in text and b"//" not in text and b"\0" not in text:
            return text if text[-1:] != b"/" or len(text) == 1 else text[:-1]
        return clean(text)


def clean(text: bytes) -> bytes:
    """The path without `.` and doubled slashes. Raises OSError: EINVAL for `..`, NUL and what is relative, ENAMETOOLONG."""
    if len(text) > MOST_PATH:
        raise OSError(errno.ENAMETOOLONG, "the path is too long")
    if text[:1] != b"/" or b"\0" in text:
        raise OSError(errno.EINVAL, "the path is not absolute, or has a NUL")
    names = [name for name in text.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise OSError(errno.EINVAL, "the path has ..")
    if any(len(name) > MOST_NAME for name in names):
        raise OSError(errno.ENAMETOOLONG, "a name is too long")
    return b"/" + b"/".join(names)


def absolute(text: bytes) -> bytes:
    """What REALPATH makes of any text: `..` goes up, not beyond the root. Raises OSError: EINVAL, ENAMETOOLONG."""
    if len(text) > MOST_PATH:
        raise OSError(errno.ENAMETOOLONG, "the path is too long")
    names: list[bytes] = []
    for name in text.split(b"/"):
        if name == b"..":
            del names[-1:]
        elif name not in (b"", b"."):
            names.append(name)
    return clean(b"/" + b"/".join(names))


class Inbox:
    """What has come on a stream, cut into packets. Holds one packet and what one recv brings, at most."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._data = b""
        self._at = 0

    def next(self) -> Reader | None:
        """The next packet that is here as a whole. Raises Malformed for a length that none may have."""
        data, at = self._data, self._at
        try:
            length = _U32.unpack_from(data, at)[0]
        except error:
            return None
        if not 1 <= length <= MOST:
            raise Malformed(f"a packet of {length} bytes")
        end = at + 4 + length
        if end > len(data):
            return None
        self._at = end
        return Reader(data, at + 4, end)

    def more(self) -> bool:
        """Waits until there is a whole packet; False when the stream has ended before. Raises as the stream, and Malformed."""
        rest = bytearray(self._data[self._at :])
        self._data, self._at = b"", 0
        while chunk := self._stream.recv(_RECV):
            if not rest and _whole(chunk):
                self._data = chunk
                return True
            rest += chunk
            if _whole(rest):
                self._data = bytes(rest)
                return True
        return False


def _whole(data: bytes | bytearray) -> bool:
    if len(data) < 4:
        return False
    length: int = _U32.unpack_from(data)[0]
    # A length that is refused is for `next` to refuse.
    return len(data) - 4 >= length or not 1 <= length <= MOST
