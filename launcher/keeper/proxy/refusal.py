"""What the proxy itself answers, in Docker's form."""

from __future__ import annotations

import json
from typing import Final


class Refusal(Exception):
    """A request that is not passed on: an HTTP status and what to say."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    @property
    def body(self) -> bytes:
        """The engine's own form of an error, which clients print."""
        return json.dumps({"message": self.message}).encode() + b"\n"


# A whole answer, for a request that was passed on; one to HEAD is the head alone.
LOST_HEAD: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
LOST: Final = LOST_HEAD + Refusal(503, "the connection to the machine ended before the engine answered (wherry status)").body
