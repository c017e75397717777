"""One connection of the Docker API: a client on one side, a channel to the engine on the other, two threads.

Bytes go on as they came. Nothing is held without bound: a client that does not read blocks our write, so the channel's window
closes; an engine that does not read blocks our send, so we stop reading the client. A request is passed on when the answer to
the one before is complete, which is when a server looks at it; so it is always known whether what the client sends is HTTP.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import h11

from launcher.errors import WherryError
from launcher.keeper.proxy import create, paths
from launcher.keeper.proxy.client import Client
from launcher.keeper.proxy.create import Rules
from launcher.keeper.proxy.creation import Creation
from launcher.keeper.proxy.heads import Answer, Edit, Request
from launcher.keeper.proxy.published import Ports, Published
from launcher.keeper.proxy.refusal import LOST, LOST_HEAD, Refusal
from launcher.ssh.library import broken
from launcher.ssh.transport import PACKET, close, receive

if TYPE_CHECKING:
    from paramiko import Channel

log = logging.getLogger("wherry.proxy")

_CHUNK: Final = 64 << 10
_LINGER: Final = 1.0  # seconds in which a client that still sends may read why it was refused


class _EngineGone(Exception):
    """The engine takes nothing more."""


class Relay:
    """Serves one client in the calling thread; `dial` opens the channel when the first request is there."""

    def __init__(
        self, client: Client, dial: Callable[[], Channel], rules: Rules, ports: Ports | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """`begun` is told of each request before anything is asked for it; it returns when the machine is awake."""
        self._client = client
        self._begun = begun
        self._dial = dial
        self._rules = rules
        self._published = Published(ports, lambda found: create.check_start(found, rules))
        self._changed = threading.Condition()  # for the two below
        self._answer: Answer | None = None
        self._ended = False  # the engine says nothing more
        self._channel: Channel | None = None
        self._down = threading.Thread(target=self._from_engine, name="engine-down", daemon=True)

    def serve(self) -> None:
        """To the end of the connection; closes the client."""
        try:
            self._from_client()
        except _EngineGone:
            self._down.join()  # what it said before, or that it is gone, is still to be told
        except broken() as error:
            log.debug("a connection ended: %s", error)
        finally:
            self.hang_up()
            if self._channel is not None:
                close(self._channel)
                self._down.join()
            self._published.tell(0)
            self._client.close()

    def hang_up(self) -> None:
        """End it from another thread."""
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)

    @property
    def working(self) -> bool:
        """Whether something would be lost if it ended now: a stream, or a request that changes something. Who follows events or
        logs asks again."""
        answer = self._answer
        return answer is not None and (answer.state == "raw" or (not answer.known and not answer.only_reads))

    @property
    def under_way(self) -> bool:
        """Whether somebody waits for an answer, or a stream is open."""
        answer = self._answer
        return answer is not None and (answer.state == "raw" or not answer.known)

    # From the client to the engine.

    def _from_client(self) -> None:
        rest: bytes | None = b""
        while rest is not None and (data := rest or self._client.recv(_CHUNK)):
            if not self._settled():
                return
            if self._raw:
                self._pump(data)
                break
            rest = self._request(data)
        if rest is not None:
            self._client_ended()

    def _settled(self) -> bool:
        """Wait for the end of the last answer, or of HTTP on this connection. False when the engine ended it before."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._answer is None or self._answer.known)
            return not self._ended or self._raw

    @property
    def _raw(self) -> bool:
        return self._answer is not None and self._answer.state == "raw"

    def _request(self, data: bytes) -> bytes | None:
        """One request, whose first bytes are there. What came behind it; None when no other can follow."""
        request = Request()
        try:
            seen, body = bytearray(data), request.feed(data)
            while request.head is None:
                if not (data := self._client.recv(_CHUNK)):
                    return None
                seen += data
                body = request.feed(data)
            self._begun()
            if paths.names_mounts(request.head.method, request.head.target):
                return self._create(request, body, self._published.ports)
            if paths.makes_volume(request.head.method, request.head.target):
                return self._create(request, body, None)
            if found := paths.starts_container(request.head.method, request.head.target):
                self._published.hold(*found)
            shows = self._published.ports is not None and paths.describes_containers(request.head.method, request.head.target)
            return self._pass_on(request, bytes(seen), self._published.shown if shows else None)
        except Refusal as refusal:
            self._published.tell(0)  # of a start that came no further than here
            return self._refuse(request, refusal)

    def _pass_on(self, request: Request, data: bytes, edit: Edit | None) -> bytes | None:
        self._begin(request, edit)
        while True:
            rest = request.rest
            self._send(data[: len(data) - len(rest)])
            if request.done:
                return rest
            if not (data := self._client.recv(_CHUNK)):
                self._client_ended()
                return None
            try:
                request.feed(data)
            except Refusal as refusal:  # what was begun cannot be answered by us any more
                log.warning("a connection is cut: %s", refusal.message)
                return None

    def _create(self, request: Request, body: bytes, ports: Ports | None) -> bytes | None:
        if request.announced > create.LARGEST_BODY:
            raise Refusal(413, "the settings are larger than 16 MB.")
        if not request.done:
            self._client.sendall(request.go_on())
        parts, size = [body], len(body)
        while not request.done:
            if not (data := self._client.recv(_CHUNK)):
                return None
            parts.append(request.feed(data))
            size += len(parts[-1])
            if size > create.LARGEST_BODY:
                raise Refusal(413, "the settings are larger than 16 MB.")
        made = Creation(self._rules, ports)
        try:
            body = made.rewrite(b"".join(parts))
            self._begin(request, made.answered)
        except BaseException:
            made.answered(0, b"")
            raise
        self._send(request.head_for(body) + body)
        return request.rest

    def _begin(self, request: Request, edit: Edit | None) -> None:
        """Have a channel, and expect an answer. Raises Refusal when the engine cannot be reached."""
        assert request.head is not None
        channel = self._channel
        if channel is None:
            try:
                channel = self._dial()
            except WherryError as error:
                raise Refusal(503, error.message + (f" ({error.hint})" if error.hint else "")) from error
        with self._changed:
            self._answer = Answer(request.head, edit)
        if self._channel is None:
            self._channel = channel
            self._down.start()

    def _refuse(self, request: Request, refusal: Refusal) -> bytes | None:
        log.info("refused: %s", refusal.message)
        self._client.sendall(request.answer(refusal))
        if not request.last:
            return request.rest
        self._linger()
        return None

    def _linger(self) -> None:
        """Take what a client still sends for a moment: one that is cut off in the middle may not read our answer."""
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + _LINGER
            while (left := deadline - time.monotonic()) > 0:
                self._client.settimeout(left)
                if not self._client.recv(_CHUNK):
                    break

    def _pump(self, data: bytes) -> None:
        """What is no HTTP, to its end."""
        while data:
            self._send(data)
            data = self._client.recv(_CHUNK)

    def _client_ended(self) -> None:
        """The client sends nothing more; it may still read. Returns when it does not any more, or the engine is silent."""
        if self._channel is None:
            return
        self._channel.shutdown_write()
        if not self._client.wait_hangup():
            self._down.join()

    def _send(self, data: bytes) -> None:
        assert self._channel is not None
        try:
            # In pieces: sendall copies the whole rest after every packet.
            for start in range(0, len(data), PACKET):
                self._channel.sendall(data[start : start + PACKET])
        except broken() as error:
            raise _EngineGone from error

    # From the engine to the client.

    def _from_engine(self) -> None:
        assert self._channel is not None
        try:
            while data := receive(self._channel.recv):
                self._heard(data)
            self._engine_ended()
        except OSError as error:
            log.debug("the client is gone: %s", error)
        except h11.RemoteProtocolError as error:
            log.warning("a connection is cut, the engine's answer cannot be read: %s", error)
        finally:
            if self._answer is not None:
                self._answer.abandon()
            self._end()
            close(self._channel)
            self.hang_up()

    def _heard(self, data: bytes) -> None:
        answer = self._answer
        if answer is not None and answer.held:
            self._client.sendall(answer.hold(data))
        else:
            self._client.sendall(data)
            if answer is None or answer.known or not answer.feed(data):
                return
        if answer.known:
            self._published.tell(answer.status)
            with self._changed:
                self._changed.notify_all()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _engine_ended(self) -> None:
        self._end()
        assert self._channel is not None
        if self._answer is not None:
            self._client.sendall(self._answer.abandon())
        if self._raw:
            # It may go on to take input, as a container does whose output was closed.
            self._client.shutdown(socket.SHUT_WR)
            self._channel.status_event.wait()
        elif self._answer is not None and self._answer.state == "head" and not self._channel.eof_received:
            # Not the engine has ended it, which sshd would have told.
            with contextlib.suppress(OSError):
                self._client.sendall(LOST_HEAD if self._answer.is_head else LOST)
