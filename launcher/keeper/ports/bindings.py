"""What a container publishes, read from the engine's description of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from launcher.keeper.ports.aliases import Aliases

PROTOCOLS: Final = ("tcp", "udp")
NIC: Final = "10.0.2.15"  # the guest's address on QEMU's network
# Where ports that nobody named are taken from, apart from every host's own range. The guest's own (iso/overlay/etc/sysctl.conf)
# begins below it.
CHOSEN_FROM: Final = range(28000, 30000)
# Modes of a container's network in which the engine publishes nothing.
_UNPUBLISHED: Final = ("host", "none", "container:")


@dataclass(frozen=True, order=True)
class Binding:
    """One port: `address` is the host's as the user named it, empty when there was none; `guest` is where the engine has it,
    `inside` the container's own port, for words only. `chosen`: the port that was chosen since the user named none, and that
    another may stand for when somebody has taken it since; 0 when the user named it."""

    proto: str
    address: str
    port: int
    guest: str = NIC
    guest_port: int = 0  # 0: the same as port
    inside: int = field(default=0, compare=False)
    chosen: int = field(default=0, compare=False)

    @property
    def target(self) -> tuple[str, int]:
        return self.guest, self.guest_port or self.port


def of_container(found: dict[str, Any], aliases: Aliases) -> list[Binding]:
    """Bindings from an answer of GET /containers/ID/json. A port that the engine is to choose is known only while it runs."""
    settings = found.get("HostConfig") or {}
    if publishes_nothing(settings.get("NetworkMode")):
        return []
    actual: dict[str, Any] = (found.get("NetworkSettings") or {}).get("Ports") or {}
    wanted: dict[str, Any] = dict(settings.get("PortBindings") or {})
    if settings.get("PublishAllPorts"):
        for key in (found.get("Config") or {}).get("ExposedPorts") or {}:
            wanted[key] = wanted.get(key) or [{}]  # none in a list is as no list
    bindings: list[Binding] = []
    for key, entries in wanted.items():
        proto = protocol(key)
        if proto not in PROTOCOLS:
            continue
        chosen = _chosen(actual.get(f"{key.partition('/')[0]}/{proto}") or [], entries or [])
        for entry in entries or []:
            port = single(entry.get("HostPort"))
            port = port or next(chosen, 0)
            if port:
                guest = str(entry.get("HostIp") or "")
                address, number = aliases.decode(guest, port)
                bindings.append(
                    Binding(
                        proto, address, number, guest_address(guest), port if port != number else 0,
                        inside=single(key.partition("/")[0]), chosen=number if is_chosen(entry.get("HostPort"), number) else 0,
                    )
                )  # fmt: skip
    return sorted(set(bindings))


def of_service(found: dict[str, Any]) -> list[Binding]:
    """What a swarm service publishes through the routing mesh: on every node, so on this one."""
    ports = (found.get("Endpoint") or {}).get("Ports") or []
    return sorted(
        Binding(str(port.get("Protocol")), "", int(port["PublishedPort"]), inside=int(port.get("TargetPort") or 0))
        for port in ports
        if port.get("PublishMode") == "ingress" and port.get("PublishedPort") and port.get("Protocol") in PROTOCOLS
    )


def protocol(key: str) -> str:
    """Of 80/tcp, 53/UDP or 80; the engine takes any case."""
    return key.partition("/")[2].lower() or "tcp"


def publishes_nothing(mode: Any) -> bool:
    """Whether that is a NetworkMode in which the engine publishes no port."""
    return any(str(mode or "").startswith(other) for other in _UNPUBLISHED)


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
    """The port that a HostPort names; 0 for none, 0, or a range of more than one."""
    first, _, last = text.partition("-") if isinstance(text, str) else ("", "", "")
    return int(first) if first.isdecimal() and int(first) <= 65535 and last in ("", first) else 0


def as_chosen(port: int) -> str:
    """A HostPort that nobody named: a range of one, which the engine keeps as it is and a user has no reason to write."""
    return f"{port}-{port}"


def is_chosen(text: Any, port: int) -> bool:
    """Whether a HostPort was made by `as_chosen` for a user who named none. `port`: the host's."""
    return isinstance(text, str) and "-" in text and port in CHOSEN_FROM


def _chosen(actual: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> Iterator[int]:
    """Ports that the engine chose: those which nobody named, each once though the engine tells it for IPv4 and IPv6."""
    named = {single(entry.get("HostPort")) for entry in wanted}
    return iter(sorted({single(entry.get("HostPort")) for entry in actual} - named - {0}))
