"""The keeper's control socket, seen from both sides: frames, requests, and the client.

A connection carries one request. Every frame is one type byte, a big-endian 32-bit length, the payload:

    J  JSON (UTF-8)      the request, then events, then the one result {"ok": true, "data"} or {"ok": false, "error"}
    I  bytes             standard input of a command        i  empty   end of standard input
    O  bytes             its standard output                E  bytes   its standard error
    C  32-bit            so many more bytes of I may come: the command has taken them
    W  two 16-bit        rows and columns after a resize    S  ASCII   a signal's name without SIG
    X  JSON              the command's end: {"code": N}, or {"lost": true, "message"} when its end is unknown

A client may send STDIN_WINDOW bytes of I before the first C: the keeper never stops reading, so that a signal is not stuck
behind input that the command does not take.

A request: {"protocol": 1, "wherry": VERSION, "verb": NAME, ...}. Verbs: status, handover, watch, stop, exec, engine,
port, apply, shares, disk.

`status` and `handover` are answered whatever protocol the request names, so that wherrys of different age can tell each other
apart: status has "keeper": {"pid", "start", "wherry", "protocol", "sessions"} beside the state, handover answers {"released",
"sessions"}. A status request tells the caller's "ssh_agent", a path or null, by the way; with "cost" true it
is told what the machine costs; with "oom_since", in seconds since the epoch, it is answered when it is known why a container
ended that ended after that, or after a moment.
"""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from launcher import __version__, host
from launcher.errors import ConnectionLost, NoProgress, NotRunning, Refused, from_json
from launcher.host.streams import Stream

PROTOCOL: Final = 1
LARGEST_FRAME: Final = 16 << 20
CHUNK: Final = 64 << 10
STDIN_WINDOW: Final = 1 << 20
AGELESS: Final = ("status", "handover")  # verbs that any wherry may ask any keeper
_ANSWERS_WITHIN: Final = 20.0  # seconds; a keeper that is stopped or hangs must not hang every command
_HEAD: Final = struct.Struct(">cI")

JSON: Final = b"J"
STDIN: Final = b"I"
STDIN_END: Final = b"i"
STDOUT: Final = b"O"
STDERR: Final = b"E"
CREDIT: Final = b"C"
WINDOW: Final = b"W"
SIGNAL: Final = b"S"
EXIT: Final = b"X"


class Framed:
    """Frames over a connected stream. One thread reads; any number of threads may write."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._buffer = bytearray()
        self._sending = threading.Lock()

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Raises OSError when the other side is gone."""
        with self._sending:
            self.stream.sendall(_HEAD.pack(kind, len(payload)) + payload)

    def send_json(self, value: dict[str, Any], kind: bytes = JSON) -> None:
        # ASCII with escapes: lone surrogates, which stand for undecodable bytes of an argument (PEP 383), survive.
        self.send(kind, json.dumps(value, ensure_ascii=True).encode("ascii"))

    def receive(self) -> tuple[bytes, bytes] | None:
        """The next frame, or None at the end of the stream. Raises ConnectionLost for half a frame or a foreign one."""
        head = self._exactly(_HEAD.size)
        if head is None:
            return None
        kind, length = _HEAD.unpack(head)
        if length > LARGEST_FRAME:
            raise ConnectionLost("the control socket sent a frame that is too large.")
        payload = self._exactly(length) if length else b""
        if payload is None:
            raise ConnectionLost("the control socket closed in the middle of a frame.")
        return kind, payload

    def _exactly(self, count: int) -> bytes | None:
        while len(self._buffer) < count:
            try:
                data = self.stream.recv(max(CHUNK, count - len(self._buffer)))
            except ConnectionError:
                data = b""
            if not data:
                if self._buffer:
                    raise ConnectionLost("the control socket closed in the middle of a frame.")
                return None
            self._buffer += data
        piece = bytes(self._buffer[:count])
        del self._buffer[:count]
        return piece

    def close(self) -> None:
        self.stream.close()


class Input:
    """The input of a command, on the client's side: `send` waits until the keeper has given credit."""

    def __init__(self, framed: Framed) -> None:
        self._framed = framed
        self._credit = STDIN_WINDOW
        self._open = True
        self._changed = threading.Condition()

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError when nobody takes it any more."""
        while data:
            with self._changed:
                self._changed.wait_for(lambda: self._credit or not self._open)
                if not self._open:
                    raise BrokenPipeError("the command has ended")
                piece, data = data[: min(self._credit, CHUNK)], data[min(self._credit, CHUNK) :]
                self._credit -= len(piece)
            self._framed.send(STDIN, piece)

    def end(self) -> None:
        self._framed.send(STDIN_END)

    def grant(self, payload: bytes) -> None:
        """Take the payload of a CREDIT frame."""
        with self._changed:
            self._credit += int.from_bytes(payload, "big")
            self._changed.notify_all()

    def close(self) -> None:
        """The command has ended: a waiting `send` raises."""
        with self._changed:
            self._open = False
            self._changed.notify_all()


def connect(path: Path) -> Framed:
    """A connection to the keeper that listens at `path`. Raises NotRunning when none does, NoProgress when it takes none."""
    try:
        return Framed(host.current().endpoints().connect(path, None))
    except (FileNotFoundError, ConnectionError) as error:
        raise NotRunning("the machine is not running.", hint="wherry up") from error
    except TimeoutError as error:
        raise NoProgress("the machine's keeper takes no connection.", hint="wherry logs keeper") from error
    except OSError as error:
        if error.errno is None:  # "path too long": no keeper can listen there, which the next start says
            raise NotRunning("the machine is not running.", hint="wherry up") from error
        raise


def request(path: Path, verb: str, /, **arguments: Any) -> Framed:
    """Connect and send a request; the caller reads the frames."""
    framed = connect(path)
    try:
        framed.send_json({"protocol": PROTOCOL, "wherry": __version__, "verb": verb, **arguments})
    except OSError as error:
        framed.close()
        raise ConnectionLost("the keeper ended while it was asked.", hint="wherry status") from error
    return framed


def events(framed: Framed) -> Iterator[dict[str, Any]]:
    """The JSON frames up to and with the result. Raises the error of a failed result, ConnectionLost when none comes."""
    while (frame := framed.receive()) is not None:
        kind, payload = frame
        if kind != JSON:
            continue
        value: dict[str, Any] = json.loads(payload)
        if value.get("ok") is False:
            raise from_json(value.get("error") or {})
        yield value
        if value.get("ok") is True:
            return
    raise ConnectionLost("the keeper ended before it answered.", hint="wherry logs keeper")


def ask(path: Path, verb: str, /, **arguments: Any) -> Any:
    """One request, one answer: the result's data. Events on the way are dropped."""
    framed = request(path, verb, **arguments)
    try:
        *_, result = events(framed)
        return result.get("data")
    finally:
        framed.close()


def ask_within(seconds: float, path: Path, verb: str, /, **arguments: Any) -> Any:
    """As `ask`, but raises NoProgress when nothing comes for so long."""
    framed = request(path, verb, **arguments)
    framed.stream.settimeout(seconds)
    try:
        *_, result = events(framed)
        return result.get("data")
    except TimeoutError as error:
        raise NoProgress(f"the machine gives no answer within {seconds:g} s.", hint="wherry restart") from error
    finally:
        framed.close()


def status(path: Path, *, cost: bool = False, oom_since: float | None = None) -> dict[str, Any]:
    """The keeper's state, which it gives at once; what the machine costs only when that is asked for, as it takes a look at
    each process. Who saw a container killed after `oom_since` (seconds since the epoch) waits a moment until the reason is
    known. Raises NotRunning when there is none, NoProgress when it does not answer."""
    return _ask_soon(path, "status", ssh_agent=host.current().ssh_agent(os.environ), cost=cost, oom_since=oom_since)


def handover(path: Path) -> dict[str, Any]:
    """Ask the keeper to let go of the machine and end, QEMU goes on; not "released" when it has sessions open.

    Raises as `status` does, and Usage at a keeper that does not know the verb.
    """
    return _ask_soon(path, "handover")


def _ask_soon(path: Path, verb: str, **arguments: Any) -> dict[str, Any]:
    framed = connect(path)
    framed.stream.settimeout(_ANSWERS_WITHIN)
    try:
        framed.send_json({"protocol": PROTOCOL, "wherry": __version__, "verb": verb, **arguments})
        *_, result = events(framed)
        data: dict[str, Any] = result["data"]
        return data
    except TimeoutError as error:
        raise NoProgress(
            f"the machine's keeper gives no answer within {_ANSWERS_WITHIN:g} s.", hint="wherry logs keeper"
        ) from error
    except (OSError, ConnectionLost) as error:
        raise NotRunning("the machine's keeper ended while it was asked.", hint="wherry up") from error
    finally:
        framed.close()


def check_request(value: dict[str, Any]) -> None:
    """The keeper's check of a request. Raises Refused for another protocol."""
    if value.get("protocol") != PROTOCOL and value.get("verb") not in AGELESS:
        raise Refused(
            f"this keeper speaks protocol {PROTOCOL}, wherry {value.get('wherry')} speaks {value.get('protocol')}.",
            hint="Stop the machine with the wherry that started it: wherry stop",
        )
