"""Whether a port can be had now, for the price of a bind: why it cannot costs a look at all sockets of this computer."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from launcher import host
from launcher.keeper.ports import sockets
from launcher.keeper.ports.bindings import Binding


def succeeds(binding: Binding, published: Iterable[str]) -> bool:
    """Whether all addresses of the binding that this computer has, and one at least, can be bound."""
    any_there = False
    for address in sockets.addresses(binding, published):
        try:
            _bind(binding.proto, address, binding.port)
            any_there = True
        except ValueError:
            return False
        except OSError as error:
            if binding.address or ":" not in address or error.errno not in sockets.NO_SUCH_ADDRESS:
                return False
    return any_there


def _bind(proto: str, address: str, port: int) -> None:
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM) as made:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        host.current().bind_exclusively(made, address, port)
