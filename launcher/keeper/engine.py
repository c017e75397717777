"""Small calls of the Engine API over the SSH connection: a docker client in the guest would cost seconds under emulation."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from launcher.errors import ConnectionLost, EngineFailed
from launcher.ssh.library import broken
from launcher.ssh.transport import Connection, close

if TYPE_CHECKING:
    from paramiko import Channel

SOCKET: Final = "/run/docker.sock"
_TIMEOUT: Final = 60.0
_CHUNK: Final = 64 << 10
_SERVER: Final = re.compile(r"Docker/(\S+)")  # moby, daemon/server/middleware/version.go: "Docker/28.5.2 (linux)"


class _Reader(io.RawIOBase):
    """What a channel receives, as a file."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._channel.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Stream:
    """As much of a socket as http.client uses."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def sendall(self, data: bytes) -> None:
        self._channel.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._channel))

    def close(self) -> None:
        close(self._channel)


def request(
    connection: Connection, method: str, path: str, body: object = None, *, timeout: float = _TIMEOUT
) -> tuple[int, bytes]:
    """One call: status and body. `body` is sent as JSON, bytes as they are. Raises ConnectionLost when no answer comes."""
    status, data, _ = _asked(connection, method, path, body, timeout)
    return status, data


def _asked(
    connection: Connection, method: str, path: str, body: object, timeout: float
) -> tuple[int, bytes, http.client.HTTPMessage]:
    headers = {"Host": "docker"}
    data = body if isinstance(body, bytes) else None
    if body is not None and data is None:
        data = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    channel = connection.open_streamlocal(SOCKET)
    channel.settimeout(timeout)
    http_connection = http.client.HTTPConnection("docker")
    http_connection.sock = cast(Any, _Stream(channel))
    try:
        http_connection.request(method, path, data, headers)
        with http_connection.getresponse() as response:
            return response.status, response.read(), response.headers
    except (*broken(), http.client.HTTPException) as error:
        raise ConnectionLost(f"the engine did not answer {method} {path}: {error!r}", hint="wherry logs engine") from error
    finally:
        http_connection.close()
        close(channel)


@contextlib.contextmanager
def stream(connection: Connection, path: str) -> Iterator[Iterator[bytes]]:
    """An answer without an end, as it comes: pieces of its body until the engine or the connection ends.

    Raises EngineFailed when the engine refuses, ConnectionLost when it does not answer.
    """
    channel = connection.open_streamlocal(SOCKET)
    channel.settimeout(_TIMEOUT)
    http_connection = http.client.HTTPConnection("docker")
    http_connection.sock = cast(Any, _Stream(channel))
    try:
        http_connection.request("GET", path, headers={"Host": "docker"})
        response = http_connection.getresponse()
        if response.status >= 400:
            raise _failed("GET", path, response.status, response.read())
        channel.settimeout(None)
        yield _pieces(response)
    except (*broken(), http.client.HTTPException) as error:
        raise ConnectionLost(f"the engine did not answer GET {path}: {error!r}", hint="wherry logs engine") from error
    finally:
        close(channel)


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    with contextlib.suppress(*broken(), http.client.HTTPException):
        while data := response.read1(_CHUNK):
            yield data


def call(connection: Connection, method: str, path: str, body: object = None, *, timeout: float = _TIMEOUT) -> Any:
    """One call: the answer's JSON, None when it is empty. Raises EngineFailed with the engine's own words."""
    status, data = request(connection, method, path, body, timeout=timeout)
    if status >= 400:
        raise _failed(method, path, status, data)
    return json.loads(data) if data.strip() else None


def version(connection: Connection) -> str:
    """The engine's version, e.g. 28.5.2. It is in the head of every answer; for `/version` it would run three programs."""
    _, _, headers = _asked(connection, "GET", "/_ping", None, _TIMEOUT)
    if said := _SERVER.match(headers.get("Server", "")):
        return said[1]
    return str(call(connection, "GET", "/version")["Version"])


def _failed(method: str, path: str, status: int, data: bytes) -> EngineFailed:
    said = f"the engine answered {status} to {method} {path}: {_message(data)}"
    return EngineFailed(said, hint="wherry logs engine", status=status)


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace").strip()
