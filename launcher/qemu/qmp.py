"""QEMU's monitor (QMP): JSON, one message a line, over a stream. Replies are matched by id, events go to a function."""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, Final, Protocol

from launcher.errors import ConnectionLost, NoProgress, WherryError

log = logging.getLogger("wherry.qmp")

LARGEST_LINE: Final = 16 << 20
_CHUNK: Final = 64 << 10

OnEvent = Callable[[str, dict[str, Any]], None]


class Stream(Protocol):
    """What is used of a socket."""

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> None: ...
    def close(self) -> None: ...


class Pipes:
    """QEMU's standard output and input as one stream, for systems where no socket can be handed over."""

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader = reader
        self._writer = writer

    def recv(self, size: int, /) -> bytes:
        data = os.read(self._reader.fileno(), size)
        if not data:
            self._reader.close()
        return data

    def sendall(self, data: bytes, /) -> None:
        self._writer.write(data)
        self._writer.flush()

    def close(self) -> None:
        # The reader thread may sit in read(), where closing its end would block on Windows: it does so itself when QEMU goes.
        self._writer.close()


class Qmp:
    """One client of one QEMU. Threads may call `execute` at the same time; events arrive in the thread that reads."""

    def __init__(self, stream: socket.socket | Stream) -> None:
        self._stream = stream
        self._greeting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._next_id = 0
        self._lost = False
        self._lock = threading.Lock()  # for the four above
        self._send_lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._on_event: OnEvent = _ignore
        self._on_end: Callable[[], None] | None = None

    def start(self, on_event: OnEvent, *, on_end: Callable[[], None] | None = None, timeout: float = 60) -> None:
        """Take the greeting and begin. `on_event` and `on_end` are called in the reading thread and must not call `execute`."""
        self._on_event = on_event
        self._on_end = on_end
        self._reader = threading.Thread(target=self._read, name="qmp", daemon=True)
        self._reader.start()
        self._take(self._greeting, "its greeting", timeout)
        self.execute("qmp_capabilities", timeout=timeout)

    def execute(self, command: str, /, *, timeout: float = 30, descriptor: int | None = None, **arguments: Any) -> Any:
        """The command's return value. `descriptor` goes along (SCM_RIGHTS): QEMU gets one of its own for it.

        Raises WherryError with QEMU's words when it refuses, ConnectionLost when the stream ends, NoProgress after `timeout`
        seconds.
        """
        if threading.current_thread() is self._reader:
            raise RuntimeError("execute() in an event function would wait for itself")
        reply: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with self._lock:
            if self._lost:
                raise _ended()
            self._next_id += 1
            number = self._next_id
            self._waiting[number] = reply
        try:
            self._send({"execute": command, "arguments": arguments, "id": number}, descriptor)
            answer = self._take(reply, f"an answer to {command}", timeout)
        finally:
            # A reply that comes later finds no entry and is dropped.
            with self._lock:
                self._waiting.pop(number, None)
        if "error" in answer:
            why = str(answer["error"].get("desc", "no reason given")).removesuffix(".")
            raise WherryError(f"QEMU refused {command}: {why}.", hint="wherry logs qemu")
        return answer.get("return")

    def close(self) -> None:
        if isinstance(self._stream, socket.socket):
            try:
                self._stream.shutdown(socket.SHUT_RDWR)  # wakes the reader, close alone does not
            except OSError:
                pass
        try:
            self._stream.close()
        except OSError:
            pass

    def _send(self, message: dict[str, Any], descriptor: int | None) -> None:
        data = json.dumps(message).encode("ascii") + b"\n"
        if descriptor is not None and not isinstance(self._stream, socket.socket):
            raise RuntimeError("descriptors go over sockets only")
        try:
            with self._send_lock:
                if descriptor is not None and isinstance(self._stream, socket.socket):
                    sent = socket.send_fds(self._stream, [data], [descriptor])
                    data = data[sent:]
                self._stream.sendall(data)
        except (OSError, ValueError) as error:  # ValueError: a closed pipe
            raise _ended() from error

    @staticmethod
    def _take(source: queue.SimpleQueue[dict[str, Any] | None], what: str, timeout: float) -> dict[str, Any]:
        try:
            message = source.get(timeout=timeout)
        except queue.Empty:
            raise NoProgress(f"QEMU's monitor did not give {what} within {timeout:g} s.", hint="wherry logs qemu") from None
        if message is None:
            raise _ended()
        return message

    def _read(self) -> None:
        try:
            for line in self._lines():
                self._dispatch(line)
        except OSError as error:
            log.debug("qmp: %s", error)
        finally:
            self._end()

    def _lines(self) -> Iterator[bytes]:
        buffer = bytearray()
        while data := self._stream.recv(_CHUNK):
            buffer += data
            *lines, rest = buffer.split(b"\n")
            buffer = rest
            yield from (bytes(line) for line in lines if line.strip())
            if len(buffer) > LARGEST_LINE:
                log.warning("qmp: a line without end, giving up")
                return

    def _dispatch(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            log.warning("qmp: not a message: %r", line[:200])
        elif "event" in message:
            self._tell(message)
        elif "QMP" in message:
            self._greeting.put(message)
        else:
            with self._lock:
                waiter = self._waiting.pop(message.get("id", 0), None)
            if waiter is None:
                log.debug("qmp: a reply that nobody waits for: %r", line[:200])
            else:
                waiter.put(message)

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._on_event(message["event"], message.get("data", {}))
        except Exception:
            log.exception("qmp: the function for event %s failed", message["event"])

    def _end(self) -> None:
        with self._lock:
            self._lost = True
            waiters = list(self._waiting.values())
        self._greeting.put(None)
        for waiter in waiters:
            waiter.put(None)
        if self._on_end is not None:
            self._on_end()


def _ignore(_event: str, _data: dict[str, Any]) -> None: ...


def _ended() -> ConnectionLost:
    return ConnectionLost("QEMU's monitor closed: the machine is off.", hint="wherry logs qemu")


# `  TCP[HOST_FORWARD]  12       127.0.0.1 40911       10.0.2.15    22     0     0`
_FORWARD = re.compile(r"^\s*TCP\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+22\s", re.MULTILINE)


def ssh_port(qmp: Qmp) -> int:
    """The port of 127.0.0.1 that QEMU chose for the guest's port 22. Only the human monitor tells it."""
    text = human(qmp, "info usernet")
    match = _FORWARD.search(text)
    if match is None:
        raise WherryError(
            "QEMU does not forward a port to the machine's sshd.", hint="wherry restart", detail=text.strip() or None
        )
    return int(match[1])


def human(qmp: Qmp, line: str) -> str:
    """A line for the human monitor and what it prints."""
    arguments: dict[str, Any] = {"command-line": line}
    return str(qmp.execute("human-monitor-command", **arguments))


def power_button(qmp: Qmp, arch: str) -> None:
    """Press it. arm64 without firmware has no ACPI and its cloud kernel no gpio_keys: there it is a key of the keyboard."""
    if arch == "arm64":
        qmp.execute("send-key", keys=[{"type": "qcode", "data": "power"}])
    else:
        qmp.execute("system_powerdown")
