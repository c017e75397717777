"""A guest without a VM: paramiko's server in this process, real commands behind it, what the tests ask about written down."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import pty
import signal
import socket
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    MSG_CHANNEL_REQUEST,
    OPEN_FAILED_CONNECT_FAILED,
    OPEN_SUCCEEDED,
)

from launcher.ssh import keys
from launcher.ssh.transport import Connection
from launcher.store import MachineDir

HELPER = "/usr/lib/wherry/exec"


def decode(fields: bytes) -> tuple[list[str], dict[str, str], str | None]:
    """What iso/helpers/exec.c reads out of a request."""
    first, *rest = fields.split(b"\0")[:-1]
    assert first == b"1"
    argv = [os.fsdecode(field[1:]) for field in rest if field[:1] == b"A"]
    env = dict(os.fsdecode(field[1:]).split("=", 1) for field in rest if field[:1] == b"E")
    cwd = next((os.fsdecode(field[1:]) for field in rest if field[:1] == b"C"), None)
    return argv, env, cwd


class Guest:
    """The server; `connect` makes the keeper's side of a connection."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine = MachineDir("test", folder / "machine")
        self.machine.path.mkdir()
        keys.make_keys(self.machine)
        self.signals: list[str] = []
        self.terminals: list[tuple[str, int, int]] = []
        self.sizes: list[tuple[int, int]] = []
        self.sockets: list[bytes] = []
        self.commands: list[str] = []
        self.exits: list[int] = []
        self.strays: list[Any] = []  # channels that a message came for after both sides had closed them
        self.refused: set[str] = set()  # kinds of channels, "exec"
        self.engine = Path("/nonexistent")  # the socket here that stands for the engine's
        self.places: dict[bytes, Path] = {}  # and for others of the guest
        self.drops = 0  # that many openings of a socket's channel find their connection broken
        self.tell_exit = True
        self.changed = threading.Condition()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._transports: list[paramiko.Transport] = []
        self._connections: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._accepting = self.start(self._accept)

    def connect(self, timeout: float = 30, **changes: Any) -> Connection:
        arguments = {"client_key": self.machine.client_key, "host_key": self.machine.host_key, "folder": str(self.folder)}
        connection = Connection.connect(self.port, timeout=timeout, **{**arguments, **changes})
        self._connections.append(connection)
        return connection

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 30)

    def drop(self) -> None:
        """The connections break."""
        for transport in self._transports:
            with contextlib.suppress(OSError):  # one of before
                transport.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        # Closing alone would not wake accept.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join()  # what it has accepted has been started then
        for transport in self._transports:
            transport.close()
            transport.join()
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for thread in self._threads:
            thread.join()
        for connection in self._connections:
            connection._transport.join()

    def start(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        def quietly() -> None:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                work(*arguments)

        thread = threading.Thread(target=quietly, daemon=True)
        thread.start()
        self._threads.append(thread)  # only then: `close` may be waiting for all of them
        return thread

    def note(self, notes: list[Any], value: Any) -> None:
        with self.changed:
            notes.append(value)
            self.changed.notify_all()

    def _accept(self) -> None:
        while True:
            stream, _ = self._listening.accept()
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = _Transport(self, stream)
            transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(str(self.machine.host_key)))
            self._transports.append(transport)
            # An event: without one it waits here for a client that may never say hello.
            transport.start_server(threading.Event(), server=_Interface(self))


class _Seen(dict[int, bool]):
    """paramiko looks in here for a message about a channel that it does not have: after a close from both sides, that is.
    OpenSSH ends the connection then."""

    def __init__(self, guest: Guest) -> None:
        super().__init__()
        self._guest = guest

    def __contains__(self, chanid: object) -> bool:
        self._guest.note(self._guest.strays, chanid)
        return super().__contains__(chanid)


class _Transport(paramiko.Transport):
    """Takes what paramiko's server does not know: signal requests, channels to unix sockets."""

    def __init__(self, guest: Guest, stream: socket.socket) -> None:
        super().__init__(stream)
        self.guest = guest
        self.path = b""
        self.channels_seen = _Seen(guest)
        self.pending: tuple[str, tuple[int, int] | None] | None = None  # the command that was just asked for
        self._kept: list[paramiko.Channel] = []  # paramiko's own table forgets a channel that nobody holds
        self._channel_handler_table = {**paramiko.Transport._channel_handler_table, MSG_CHANNEL_REQUEST: self._request}  # type: ignore[attr-defined]

    def _request(self, channel: paramiko.Channel, message: paramiko.Message) -> None:
        if message.get_text() == "signal":
            assert message.get_boolean() is False  # RFC 4254, 6.9
            name = message.get_text()
            assert message.get_remainder() == b""
            process = next(found for found in self.guest.processes if getattr(found, "channel", None) is channel)
            self.guest.note(self.guest.signals, name)  # first: who sees the command end finds it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, getattr(signal, f"SIG{name}"))
            return
        message.rewind()
        message.get_int()
        channel._handle_request(message)  # type: ignore[attr-defined]
        # Only now, with the request answered: a short command's end must not overtake the answer.
        if self.pending is not None:
            line, size = self.pending
            self.pending = None
            _start(self.guest, channel, line, size)

    def _parse_channel_open(self, message: paramiko.Message) -> None:
        self.path = b""
        if message.get_text() == "direct-streamlocal@openssh.com":
            message.get_int(), message.get_int(), message.get_int()
            self.path = message.get_binary()
            # OpenSSH PROTOCOL, 2.4: two reserved fields end the message.
            assert (message.get_binary(), message.get_int(), message.get_remainder()) == (b"", 0, b"")
            self.guest.note(self.guest.sockets, self.path)
            if self.guest.drops:
                self.guest.drops -= 1
                self.sock.shutdown(socket.SHUT_RDWR)
                return
        message.rewind()
        super()._parse_channel_open(message)  # type: ignore[misc]

    def _queue_incoming_channel(self, channel: paramiko.Channel) -> None:
        self._kept.append(channel)
        if self.path:
            place = self.guest.places.get(self.path, self.guest.engine)
            self.path = b""
            self.guest.start(_bridge, self.guest, channel, place)


class _Interface(paramiko.ServerInterface):
    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._sizes: dict[int, tuple[int, int]] = {}

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = key == keys.read_public(self._guest.machine.client_key) and username == "root"
        return AUTH_SUCCESSFUL if known else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_FAILED_CONNECT_FAILED if kind in self._guest.refused else OPEN_SUCCEEDED

    def check_channel_pty_request(
        self, channel: Any, term: bytes, width: int, height: int, pixelwidth: int, pixelheight: int, modes: bytes
    ) -> bool:
        self._sizes[channel.chanid] = (height, width)
        self._guest.note(self._guest.terminals, (term.decode(), height, width))
        return True

    def check_channel_window_change_request(
        self, channel: Any, width: int, height: int, pixelwidth: int, pixelheight: int
    ) -> bool:
        self._guest.note(self._guest.sizes, (height, width))
        return True

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        if "exec" in self._guest.refused:
            return False
        channel.get_transport().pending = (command.decode(), self._sizes.get(channel.chanid))
        return True


def _start(guest: Guest, channel: paramiko.Channel, line: str, size: tuple[int, int] | None) -> None:
    guest.note(guest.commands, line)
    argv, env, cwd = _parse(line)
    streams: list[Any] = [subprocess.PIPE] * 3
    master = -1
    if size is not None:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        streams = [slave] * 3
    try:
        process = subprocess.Popen(
            argv, stdin=streams[0], stdout=streams[1], stderr=streams[2], start_new_session=True, cwd=cwd,
            env={"PATH": os.environ["PATH"], **env}, bufsize=0,
        )  # fmt: skip
    except FileNotFoundError:
        process = subprocess.Popen(
            ["sh", "-c", "exit 127"], stdin=streams[0], stdout=streams[1], stderr=streams[2], start_new_session=True
        )
    process.channel = channel  # type: ignore[attr-defined]
    guest.note(guest.processes, process)
    if master >= 0:
        os.close(slave)
        guest.start(_serve, guest, channel, process, [os.dup(master)], master)
    else:
        assert process.stdin and process.stdout and process.stderr
        outputs = [os.dup(stream.fileno()) for stream in (process.stdout, process.stderr)]
        stdin = os.dup(process.stdin.fileno())
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        guest.start(_serve, guest, channel, process, outputs, stdin)


def _parse(line: str) -> tuple[list[str], dict[str, str], str | None]:
    words = line.split()
    if words[:2] != ["exec", HELPER]:
        return ["sh", "-c", line], {}, None
    if words[2] != "-f":
        return decode(base64.b64decode(words[2], validate=True))
    file = Path(words[3])
    assert file.stat().st_mode & 0o777 == 0o600
    try:
        return decode(file.read_bytes())
    finally:
        file.unlink()


def _serve(guest: Guest, channel: paramiko.Channel, process: subprocess.Popen[bytes], outputs: list[int], stdin: int) -> None:
    guest.start(_feed, channel, stdin)
    sends = [channel.sendall, channel.sendall_stderr]
    pumps = [guest.start(_drain, output, send) for output, send in zip(outputs, sends, strict=False)]
    code = process.wait()
    # sshd tells the end at once; the channel stays while somebody holds the output.
    if guest.tell_exit:
        channel.send_exit_status(code if code >= 0 else 128 - code)  # as exec.c tells a signal
        guest.note(guest.exits, code)
    for pump in pumps:
        pump.join()
    channel.close()


def _feed(channel: paramiko.Channel, stdin: int) -> None:
    try:
        while data := channel.recv(65536):
            while data:
                data = data[os.write(stdin, data) :]
    finally:
        os.close(stdin)


def _drain(output: int, send: Callable[[bytes], Any]) -> None:
    try:
        while data := os.read(output, 65536):
            send(data)
    finally:
        os.close(output)


def _bridge(guest: Guest, channel: paramiko.Channel, place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stream, channel:
        stream.connect(str(place))
        upwards = guest.start(_forward, channel, stream)
        while answer := stream.recv(65536):
            channel.sendall(answer)
        # As sshd does: the end of one direction is told, the other one goes on, and both ended are a close.
        channel.shutdown_write()
        upwards.join()


def _forward(channel: paramiko.Channel, stream: socket.socket) -> None:
    try:
        while data := channel.recv(65536):
            stream.sendall(data)
    finally:
        stream.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def guest(folder: Path) -> Iterator[Guest]:
    """A guest whose threads and processes are gone after the test."""
    made = Guest(folder)
    try:
        yield made
    finally:
        made.close()
