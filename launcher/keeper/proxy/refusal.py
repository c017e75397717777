"""What the proxy itself answers, in Docker's form."""

from __future__ import annotations

import json


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
