"""Ports in the settings of a container to be created: chosen where the user named none, told as the guest has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from launcher.errors import WherryError
from launcher.keeper.ports import bindings
from launcher.keeper.ports.aliases import Aliases, is_address
from launcher.keeper.ports.reserved import Wish

_RANGE: Final = re.compile(r"(\d{1,5})-(\d{1,5})")
_NOBODY: Final = ("", "0")  # named a port


@dataclass
class Plan:
    """What is to be changed in one HostConfig. `wishes` are to be granted between `of` and `write`."""

    wishes: list[Wish] = field(default_factory=list)
    _writes: list[Callable[[Aliases], bool]] = field(default_factory=list)

    def write(self, aliases: Aliases) -> bool:
        """Whether anything changed. Raises WherryError as Aliases.encode."""
        changed = [write(aliases) for write in self._writes]
        return any(changed)


def of(settings: dict[str, Any], exposed: Callable[[], Iterable[str]]) -> Plan:
    """The plan for a HostConfig, whose keys are read without case. `exposed` tells, when all ports are to be published, which
    those are, as 80/tcp. Raises WherryError for a protocol that does not lead into the machine."""
    plan = Plan()
    if bindings.publishes_nothing(_get(settings, "NetworkMode")):
        return plan
    published = _get(settings, "PortBindings")
    if _get(settings, "PublishAllPorts") is True and (published is None or isinstance(published, dict)):
        # What is exposed of other protocols is left to the engine: nobody asked for it by its name.
        ours = [port for port in exposed() if bindings.protocol(port) in bindings.PROTOCOLS]
        wanted = [port for port in ours if not (published or {}).get(port)]
        if wanted and published is None:
            published = _set(settings, "PortBindings", {})
        for port in wanted:
            published[port] = [{"HostIp": "", "HostPort": ""}]
    if isinstance(published, dict):
        for key, entries in published.items():
            for entry in entries if isinstance(entries, list) else []:
                if isinstance(entry, dict):
                    _entry(plan, _protocol(key), entry)
    return plan


def _protocol(key: str) -> str:
    proto = bindings.protocol(key)
    if proto == "sctp":
        raise WherryError(
            f"{key} cannot be published: only tcp and udp lead into the machine.",
            hint="Without -p, containers reach it on a network that they share.",
        )
    return proto


def _entry(plan: Plan, proto: str, entry: dict[str, Any]) -> None:
    address, text = _get(entry, "HostIp") or "", _get(entry, "HostPort") or ""
    if proto not in bindings.PROTOCOLS:
        return
    if not isinstance(address, str) or not isinstance(text, str) or (address and not is_address(address)):
        return
    if text in _NOBODY:
        wish = Wish(proto, address)
    elif (match := _RANGE.fullmatch(text)) and int(match[1]) < int(match[2]) <= 65535:
        wish = Wish(proto, address, range(int(match[1]), int(match[2]) + 1))
    else:
        port = bindings.single(text)
        if port:
            plan._writes.append(lambda aliases: _write(entry, aliases, address, port))
        return
    plan.wishes.append(wish)
    plan._writes.append(lambda aliases: _write(entry, aliases, address, wish.port, unnamed=text in _NOBODY))


def _write(entry: dict[str, Any], aliases: Aliases, address: str, port: int, *, unnamed: bool = False) -> bool:
    guest, number = aliases.encode(address, port)
    # A range of one that the user wrote would be taken for the mark of a port that nobody named.
    text = bindings.as_chosen(number) if unnamed else str(number)
    if (guest, text) == (address, _get(entry, "HostPort")):
        return False
    _set(entry, "HostIp", guest)
    _set(entry, "HostPort", text)
    return True


def _get(holder: dict[str, Any], name: str) -> Any:
    return next((value for key, value in holder.items() if key.casefold() == name.casefold()), None)


def _set(holder: dict[str, Any], name: str, value: Any) -> Any:
    holder[next((key for key in holder if key.casefold() == name.casefold()), name)] = value
    return value
