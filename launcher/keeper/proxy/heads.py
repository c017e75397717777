"""Requests and answers of one connection, read by h11 from a copy of their bytes (RFC 9112): where each begins and ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import h11

from launcher.keeper.proxy.refusal import Refusal

LARGEST_HEAD: Final = 1 << 20  # what the engine's own server takes (Go, http.DefaultMaxHeaderBytes)
_NO_BODY: Final = (204, 304)
_REASONS: Final = {
    400: b"Bad Request",
    413: b"Request Entity Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}
# Of the body that is rewritten these are no longer true.
_OF_THE_BODY: Final = (b"content-length", b"transfer-encoding", b"expect", b"trailer")


Edit = Callable[[int, bytes], bytes]
Items = list[tuple[bytes, bytes]]
LARGEST_EDITED: Final = 16 << 20  # tens of thousands of containers


def _head_for(first: bytes, headers: Items, body: bytes) -> bytes:
    """A head as it came, but for a body that was rewritten."""
    kept = [(name, value) for name, value in headers if name.lower() not in _OF_THE_BODY]
    lines = [first, *(b"%s: %s" % item for item in [*kept, (b"Content-Length", b"%d" % len(body))])]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _is_ambiguous(head: h11.Request) -> bool:
    """Whether another server could see the body's end elsewhere: two lengths (RFC 9112, 6.1), or chunks in HTTP/1.0, where Go
    does not look at Transfer-Encoding."""
    names = {name for name, _ in head.headers}
    return b"transfer-encoding" in names and (b"content-length" in names or head.http_version == b"1.0")


class Request:
    """One request as it comes from the client. Feed it until `done`; what it did not take is in `rest`."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)
        self.head: h11.Request | None = None
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes; what they hold of the body. Raises Refusal for what is no HTTP/1."""
        self._http.receive_data(data)
        body = []
        try:
            while not self.done and (event := self._http.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Request):
                    self._begin(event)
                elif isinstance(event, h11.Data):
                    body.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self.done = True
                else:
                    break
        except h11.RemoteProtocolError as error:
            raise Refusal(error.error_status_hint, f"this is no request that can be read: {error}") from error
        return b"".join(body)

    def _begin(self, head: h11.Request) -> None:
        # HTTP/2 without an upgrade begins with something that looks like a head; nothing could be watched in it.
        if head.http_version not in (b"1.0", b"1.1"):
            raise Refusal(505, f"HTTP/{head.http_version.decode()} is not spoken here without an upgrade.")
        if _is_ambiguous(head):
            raise Refusal(400, "the end of this request is told in two ways.")
        self.head = head

    @property
    def rest(self) -> bytes:
        """Bytes that came behind the end of the request."""
        return self._http.trailing_data[0] if self.done else b""

    @property
    def announced(self) -> int:
        """The length of the body as the head tells it; 0 when it does not."""
        assert self.head is not None
        return next((int(value) for name, value in self.head.headers if name == b"content-length"), 0)

    def go_on(self) -> bytes:
        """What a client wants to hear before it sends the body; empty when it waits for nothing."""
        if not self._http.they_are_waiting_for_100_continue:
            return b""
        return self._http.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")) or b""

    def head_for(self, body: bytes) -> bytes:
        """The head as it came, but for a body that was rewritten."""
        assert self.head is not None
        first = b"%s %s HTTP/%s" % (self.head.method, self.head.target, self.head.http_version)
        return _head_for(first, self.head.headers.raw_items(), body)

    def answer(self, refusal: Refusal) -> bytes:
        """A whole answer of ours; it ends the connection unless the request has come to its end."""
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(refusal.body)))]
        if not self.done:
            headers.append(("Connection", "close"))
        head = h11.Response(status_code=refusal.status, headers=headers, reason=_REASONS.get(refusal.status, b""))
        no_body = self.head is not None and self.head.method == b"HEAD"
        body = [] if no_body else [h11.Data(data=refusal.body)]
        parts = [self._http.send(event) for event in (head, *body, h11.EndOfMessage())]
        return b"".join(part for part in parts if part)

    @property
    def last(self) -> bool:
        """Whether nothing can follow on the connection after `answer`."""
        return self._http.our_state is not h11.DONE


class Answer:
    """What the engine says to one request. Feed it until what comes next is `known`.

    raw: from here on the connection is no HTTP any more (101), or an answer without a length, which only its end ends.
    """

    def __init__(self, request: h11.Request, edit: Edit | None = None) -> None:
        """`edit` gets status and body of the whole answer and returns the body to pass on."""
        self._edit = edit
        self._raw = bytearray()  # of an answer that is edited
        self._body = bytearray()
        self._head: h11.Response | None = None
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_HEAD)
        self.is_head = request.method == b"HEAD"
        self.only_reads = request.method in (b"GET", b"HEAD")
        self.state: Literal["head", "body", "done", "raw"] = "head"
        self.status = 0  # the engine's, once the head is there
        # h11 must believe to have sent the request, and that it allows any switch of protocols.
        asked = [("Host", "engine"), ("Connection", "upgrade"), ("Upgrade", "any")]
        self._http.send(h11.Request(method=b"HEAD" if self.is_head else b"GET", target=b"/", headers=asked))
        self._http.send(h11.EndOfMessage())

    def feed(self, data: bytes) -> bool:
        """Take bytes; whether it is `known` now. Raises h11.RemoteProtocolError for what is no HTTP/1."""
        self._http.receive_data(data)
        while not self.known and (event := self._http.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response):
                self.status = event.status_code
                self._head = event
                self.state = "raw" if self._endless(event) else "body"
            elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                self.state = "raw"
            elif isinstance(event, h11.Data) and self._edit is not None:
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.state = "done"
        return self.known

    @property
    def held(self) -> bool:
        """Whether what comes is for `hold`, else for `feed`."""
        return self._edit is not None

    def hold(self, data: bytes) -> bytes:
        """Take bytes; what may go to the client: nothing until the answer is complete, or too large to be edited."""
        assert self._edit is not None
        self._raw += data
        if not self.feed(data) and len(self._raw) <= LARGEST_EDITED:
            return b""
        head, body = self._head, bytes(self._body)
        if self.state != "done" or head is None:
            return self.abandon()
        edit, self._edit = self._edit, None
        edited = edit(self.status, body)
        if edited == body:
            return bytes(self._raw)
        first = b"HTTP/%s %d %s" % (head.http_version, head.status_code, head.reason)
        return _head_for(first, head.headers.raw_items(), edited) + edited

    def abandon(self) -> bytes:
        """Nothing will be edited: what was held back."""
        edit, self._edit = self._edit, None
        if edit is None:
            return b""
        edit(0, b"")
        return bytes(self._raw)

    @property
    def known(self) -> bool:
        """Whether the answer is complete, or no HTTP follows it."""
        return self.state in ("done", "raw")

    def _endless(self, head: h11.Response) -> bool:
        if self.is_head or head.status_code in _NO_BODY:
            return False
        return not any(name in (b"content-length", b"transfer-encoding") for name, _ in head.headers)
