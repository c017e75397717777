"""One warm connection to the guest's sshd. paramiko's errors become ours here."""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from launcher.errors import ConnectionLost, Refused, WherryError
from launcher.ssh import keys, request
from launcher.ssh.library import broken

if TYPE_CHECKING:
    import paramiko

    from launcher.ssh.channels import Transport

log = logging.getLogger("wherry.ssh")

HELPER: Final = "/usr/lib/wherry/exec"
REQUESTS: Final = "/run/wherry"

# The first of each that sshd knows is taken (RFC 4253, 7.1).
KEX: Final = ("curve25519-sha256@libssh.org", "ecdh-sha2-nistp256")
CIPHERS: Final = ("aes128-gcm@openssh.com", "aes128-ctr")
MACS: Final = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-256")

# The window bounds what a channel holds in our memory when its reader stops. Of 20 MB from an sshd on the loopback 256 KB
# moved 11-20 MB/s, 2 MB 26-68, 8 MB 39-67; packets of 128 KB gained nothing, nor did aes128-ctr over aes128-gcm.
WINDOW: Final = 2 << 20
PACKET: Final = 32 << 10
CHANNEL_SECONDS: Final = 60.0
# How often the reading thread looks up from an idle socket; paramiko's own 0.1 s keeps a laptop's CPU awake.
IDLE_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Terminal:
    """The pseudo-terminal that a command gets (RFC 4254, 6.2)."""

    term: str
    rows: int
    columns: int


@dataclass(frozen=True)
class Prepared:
    """A command that is about to be started, and the channel for it."""

    name: str
    line: str
    channel: paramiko.Channel
    connection: Connection

    def start(self, terminal: Terminal | None = None) -> paramiko.Channel:
        """Raises ConnectionLost; whether the command runs is then unknown."""
        try:
            with _translated(f"{self.name} was not started in the machine"):
                if terminal is not None:
                    self.channel.get_pty(terminal.term, terminal.columns, terminal.rows)
                self.channel.exec_command(self.line)
        except BaseException:
            close(self.channel)
            raise
        return self.channel


class Connection:
    """An authenticated connection; `connect` makes one. Safe to use from many threads."""

    def __init__(self, transport: Transport, stream: socket.socket, helper: str, folder: str) -> None:
        self._transport = transport
        self._stream = stream
        self._helper = helper
        self._folder = folder
        self._ping_lock = threading.Lock()

    @classmethod
    def connect(
        cls,
        port: int,
        client_key: Path,
        host_key: Path,
        *,
        timeout: float,
        first_word: float | None = None,
        user: str = "root",
        helper: str = HELPER,
        folder: str = REQUESTS,
    ) -> Self:
        """Connect to 127.0.0.1:`port` and log in; `host_key` is the pair that we made, whose public half is pinned.

        `timeout` is for each step, `first_word` for the connection and the server's first word alone.
        Raises ConnectionLost when nobody speaks SSH there in time, Refused when it is not our guest.
        """
        from launcher.ssh.channels import Transport

        stream, transport = None, None
        soon = first_word or timeout
        try:
            with _translated("the machine does not answer over SSH"):
                stream = socket.create_connection(("127.0.0.1", port), timeout=soon)
                # Nagle's algorithm and delayed ACKs together cost 40 ms per small request.
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                transport = Transport(stream, WINDOW, PACKET)
                transport.banner_timeout = soon
                _log_in(transport, user, client_key, keys.read_public(host_key), timeout)
            stream.settimeout(IDLE_SECONDS)
            return cls(transport, stream, helper, folder)
        except BaseException:
            if transport is not None:
                transport.close()
            if stream is not None:
                stream.close()
            raise

    @property
    def alive(self) -> bool:
        return self._transport.is_active()

    def close(self) -> None:
        """End the connection and all of its channels. More than once does no harm."""
        # Closing a socket does not wake the thread that reads from it; shutting it down does.
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._transport.close()
        if self._transport.completion_event is not None:
            self._transport.completion_event.set()

    def when_ended(self, tell: Callable[[], object]) -> None:
        """Have `tell` called once when the connection has ended, whoever ended it: at once when it has already."""
        self._transport.when_ended(tell)

    def ping(self, timeout: float | None) -> bool:
        """Whether sshd answers within `timeout` seconds (a global request that wants a reply, RFC 4254, 4). None: however long
        that takes, as long as the connection is there."""
        from paramiko.common import cMSG_GLOBAL_REQUEST
        from paramiko.message import Message

        with self._ping_lock:
            answered = threading.Event()
            # As Transport.global_request does it, which would wait for ever; a refusal is an answer too.
            self._transport.completion_event = answered
            if not self.alive:
                return False
            with contextlib.suppress(*broken()):
                message = Message()
                message.add_byte(cMSG_GLOBAL_REQUEST)
                message.add_string("keepalive@openssh.com")
                message.add_boolean(True)
                self._transport._send_user_message(message)  # type: ignore[attr-defined]
                return answered.wait(timeout) and self.alive
            return False

    def open_session(self) -> paramiko.Channel:
        with _translated("the machine opens no SSH session"):
            return self._transport.take(self._transport.open_session(timeout=CHANNEL_SECONDS))

    def open_streamlocal(self, path: str) -> paramiko.Channel:
        """A channel to a unix socket in the guest."""
        with _translated(f"{path} in the machine cannot be reached"):
            return self._transport.take(request.open_streamlocal(self._transport, path, CHANNEL_SECONDS))

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        *,
        terminal: Terminal | None = None,
    ) -> paramiko.Channel:
        """Start a command under the guest's `exec` helper; the channel carries its input, output and exit code."""
        return self.prepare(argv, env, cwd).start(terminal)

    def prepare(self, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> Prepared:
        """All of a start that may be done twice without harm."""
        line = self._command_line(request.encode(argv, env or {}, cwd))
        return Prepared(argv[0], line, self.open_session(), self)

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> tuple[int, bytes, bytes]:
        """Run a small command to its end: exit code, stdout, stderr. Raises WherryError when it outlasts `timeout` seconds."""
        return self._finish(self.start(argv), argv[0], stdin, timeout)

    def run_line(self, line: str, *, stdin: bytes = b"", timeout: float) -> tuple[int, bytes, bytes]:
        """As `run`, a line for the guest's shell: two programs fewer are started. Nothing ends it when this connection ends."""
        channel = self.open_session()
        with _translated("the command was not started in the machine"):
            channel.exec_command(line)
        return self._finish(channel, "the command", stdin, timeout)

    def _command_line(self, fields: bytes) -> str:
        # exec: a shell that waits for the helper would get our signals in its place.
        word = request.inline(fields)
        if word is not None:
            return f"exec {self._helper} {word}"
        file = f"{self._folder}/request-{secrets.token_hex(8)}"
        channel = self.open_session()
        with _translated("the command was not handed to the machine"):
            channel.exec_command(f"umask 077; exec cat > {file}")
        code, _, words = self._finish(channel, "cat", fields, CHANNEL_SECONDS)
        if code != 0:
            raise WherryError(
                "the command was not handed to the machine.", hint="wherry ssh df -h /run",
                detail=words.decode(errors="replace").strip(),
            )  # fmt: skip
        return f"exec {self._helper} -f {file}"

    def _finish(self, channel: paramiko.Channel, name: str, stdin: bytes, timeout: float) -> tuple[int, bytes, bytes]:
        late = threading.Event()
        errors = bytearray()

        def give_up() -> None:
            late.set()
            close(channel)

        def read_errors() -> None:
            while data := receive(channel.recv_stderr):
                errors.extend(data)

        def feed() -> None:
            with contextlib.suppress(*broken()):
                # In pieces: sendall copies the whole rest after every packet.
                for start in range(0, len(stdin), PACKET):
                    channel.sendall(stdin[start : start + PACKET])
                channel.shutdown_write()

        timer = threading.Timer(timeout, give_up)
        timer.daemon = True
        helpers = [threading.Thread(target=work, daemon=True) for work in (read_errors, feed)]
        for thread in (timer, *helpers):
            thread.start()
        output = bytearray()
        while data := receive(channel.recv):
            output.extend(data)
        code = channel.recv_exit_status()
        timer.cancel()
        close(channel)
        for thread in helpers:
            thread.join()
        if late.is_set():
            raise WherryError(f"{name} did not end within {timeout:g} s in the machine.", hint="wherry status")
        if code < 0:
            raise ConnectionLost(f"the connection to the machine ended while {name} ran.", hint="wherry status")
        return code, bytes(output), bytes(errors)


def receive(channel_receive: Callable[[int], bytes]) -> bytes:
    """What came on one stream of a channel; empty at its end, and when the connection ends."""
    try:
        return channel_receive(WINDOW)
    except broken():
        return b""


def close(channel: paramiko.Channel) -> None:
    with contextlib.suppress(*broken()):
        channel.close()


def _log_in(transport: paramiko.Transport, user: str, client_key: Path, host_key: paramiko.PKey, timeout: float) -> None:
    from paramiko import AuthenticationException, Ed25519Key

    transport.handshake_timeout = transport.auth_timeout = timeout
    options = transport.get_security_options()
    options.kex, options.ciphers, options.digests = KEX, CIPHERS, MACS
    options.key_types = (host_key.get_name(),)
    transport.start_client(timeout=timeout)
    # Before a word about us is said: any process may listen on a port of the loopback.
    if transport.get_remote_server_key().asbytes() != host_key.asbytes():
        raise Refused("the SSH server on the machine's port is not this machine.", hint="wherry restart")
    try:
        transport.auth_publickey(user, Ed25519Key.from_private_key_file(str(client_key)))
    except AuthenticationException as error:
        if transport.is_active():
            raise Refused("the machine does not accept our key.", hint="wherry restart") from error
        raise


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """paramiko's errors and the socket's as ConnectionLost."""
    try:
        yield
    except broken() as error:
        why = str(error).rstrip(".") or type(error).__name__
        raise ConnectionLost(f"{what}: {why}.", hint="wherry status") from error
