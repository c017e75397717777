"""Ports in the settings of a container to be created: chosen where the user named none, told as the guest has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from launcher.keeper.ports import bindings
from launcher.keeper.ports.aliases import Aliases, is_address
from launcher.keeper.ports.holders import Wish

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
    those are, as 80/tcp."""
    plan = Plan()
    if bindings.publishes_nothing(_get(settings, "NetworkMode")):
        return plan
    published = _get(settings, "PortBindings")
    if _get(settings, "PublishAllPorts") is True and (published is None or isinstance(published, dict)):
        wanted = [port for port in exposed() if port not in (published or {})]
        if wanted and published is None:
            published = _set(settings, "PortBindings", {})
        for port in wanted:
            published[port] = [{"HostIp": "", "HostPort": ""}]
    if isinstance(published, dict):
        for key, entries in published.items():
            proto = key.partition("/")[2].lower() or "tcp"
            if proto in bindings.PROTOCOLS and isinstance(entries, list):
                for entry in entries:
                    if isinstance(entry, dict):
                        _entry(plan, proto, entry)
    return plan


def _entry(plan: Plan, proto: str, entry: dict[str, Any]) -> None:
    address, text = _get(entry, "HostIp") or "", _get(entry, "HostPort") or ""
    if not isinstance(address, str) or not isinstance(text, str) or (address and not is_address(address)):
        return
    if text in _NOBODY:
        wish = Wish(proto, address)
    elif (match := _RANGE.fullmatch(text)) and int(match[1]) < int(match[2]) <= 65535:
        wish = Wish(proto, address, range(int(match[1]), int(match[2]) + 1))
    else:
        port = bindings.single(text)
        if port:
            plan._writes.append(lambda aliases: _write(entry, aliases, address, port, chosen=False))
        return
    plan.wishes.append(wish)
    plan._writes.append(lambda aliases: _write(entry, aliases, address, wish.port, chosen=True))


def _write(entry: dict[str, Any], aliases: Aliases, address: str, port: int, *, chosen: bool) -> bool:
    guest, number = aliases.encode(address, port)
    if not chosen and (guest, number) == (address, port):
        return False
    _set(entry, "HostIp", guest)
    _set(entry, "HostPort", bindings.as_chosen(number) if chosen else str(number))
    return True


def _get(holder: dict[str, Any], name: str) -> Any:
    return next((value for key, value in holder.items() if key.casefold() == name.casefold()), None)


def _set(holder: dict[str, Any], name: str, value: Any) -> Any:
    holder[next((key for key in holder if key.casefold() == name.casefold()), name)] = value
    return value
