"""What a container publishes, read from the engine's description of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

PROTOCOLS: Final = ("tcp", "udp")
NIC: Final = "10.0.2.15"  # the guest's address on QEMU's network
# Modes of a container's network in which the engine publishes nothing.
_UNPUBLISHED: Final = ("host", "none", "container:")


@dataclass(frozen=True, order=True)
class Binding:
    """One port: `address` is the host's as the user named it, empty when there was none; `guest` is where the engine has it,
    `inside` the container's own port, for words only."""

    proto: str
    address: str
    port: int
    guest: str = NIC
    guest_port: int = 0  # 0: the same as port
    inside: int = field(default=0, compare=False)

    @property
    def target(self) -> tuple[str, int]:
        return self.guest, self.guest_port or self.port


def of_container(found: dict[str, Any]) -> list[Binding]:
    """Bindings from an answer of GET /containers/ID/json. A port that the engine is to choose is known only while it runs."""
    settings = found.get("HostConfig") or {}
    if any(str(settings.get("NetworkMode") or "").startswith(mode) for mode in _UNPUBLISHED):
        return []
    actual: dict[str, Any] = (found.get("NetworkSettings") or {}).get("Ports") or {}
    wanted: dict[str, Any] = dict(settings.get("PortBindings") or {})
    if settings.get("PublishAllPorts"):
        wanted = {**{key: [{}] for key in (found.get("Config") or {}).get("ExposedPorts") or {}}, **wanted}
    bindings: list[Binding] = []
    for key, entries in wanted.items():
        proto = key.partition("/")[2] or "tcp"
        if proto not in PROTOCOLS:
            continue
        chosen = _chosen(actual.get(key) or [], entries or [])
        for entry in entries or []:
            port = single(entry.get("HostPort"))
            port = port or next(chosen, 0)
            if port:
                address = str(entry.get("HostIp") or "")
                bindings.append(Binding(proto, address, port, guest_address(address), inside=single(key.partition("/")[0])))
    return sorted(set(bindings))


def of_service(found: dict[str, Any]) -> list[Binding]:
    """What a swarm service publishes through the routing mesh: on every node, so on this one."""
    ports = (found.get("Endpoint") or {}).get("Ports") or []
    return sorted(
        Binding(str(port.get("Protocol")), "", int(port["PublishedPort"]))
        for port in ports
        if port.get("PublishMode") == "ingress" and port.get("PublishedPort") and port.get("Protocol") in PROTOCOLS
    )


def guest_address(address: str) -> str:
    """Where the engine in the guest has what was published on that address of the host."""
    if not address:
        return NIC
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return NIC
    return address if known.version == 4 and known.is_loopback else NIC


def single(text: Any) -> int:
    """The port that a HostPort names; 0 for none, 0, or a range."""
    return int(text) if isinstance(text, str) and text.isdecimal() and int(text) <= 65535 else 0


def _chosen(actual: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> Iterator[int]:
    """Ports that the engine chose: those which nobody named, each once though the engine tells it for IPv4 and IPv6."""
    named = {single(entry.get("HostPort")) for entry in wanted}
    return iter(sorted({single(entry.get("HostPort")) for entry in actual} - named - {0}))
