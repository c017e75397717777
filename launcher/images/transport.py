"""How the network is used: what a user may set, and how patient we are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Transport:
    """Settings of downloads; times in seconds. The defaults are those of the product, tests are less patient."""

    proxy: str = ""  # URL; empty: that of the environment (HTTPS_PROXY, NO_PROXY) or of the system
    ca: str = ""  # PEM file with certificates that are trusted beside the system's
    connect: float = 20.0  # until a server is reached and TLS is agreed on
    stall: float = 30.0  # without a single byte
    attempts: int = 5  # in a row that brought nothing new; each mirror has its own
    first_wait: float = 1.0  # before the second attempt; doubles
    longest_wait: float = 30.0  # whatever the server's Retry-After says
