"""Ports of this computer's loopback, and waiting for what becomes true."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    """The bound is a hang guard."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
