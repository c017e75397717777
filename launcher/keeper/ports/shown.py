"""Ports in what the engine answers about containers: as the user asked for them, and as they are on this computer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from launcher.keeper.ports import bindings
from launcher.keeper.ports.aliases import EVERYWHERE, PORT, Aliases

_CHOSEN: Final = re.compile(rb'"(\d+)-\1"')
Moved = Callable[[str], dict[tuple[str, int], int]]  # by a container's id: Holders.moved


def restore(body: bytes, aliases: Aliases, moved: Moved, *, any_moved: bool) -> bytes:
    """The answer to GET /containers/json or /containers/ID/json; the same bytes when nothing in it changes."""
    if not any_moved and b"%d" % PORT not in body and not _CHOSEN.search(body):
        return body
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return body
    for container in value if isinstance(value, list) else [value]:
        if isinstance(container, dict):
            _container(container, aliases, moved(str(container.get("Id"))))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _container(found: dict[str, Any], aliases: Aliases, moved: dict[tuple[str, int], int]) -> None:
    for port in _list(found.get("Ports")):  # in the list of containers
        if "PublicPort" in port:
            address, number = aliases.decode(str(port.get("IP") or ""), port["PublicPort"])
            port["IP"] = address if address or not port.get("IP") else EVERYWHERE
            port["PublicPort"] = moved.get((str(port.get("Type")).lower(), number), number)
    for proto, entry in _entries((found.get("NetworkSettings") or {}).get("Ports")):
        guest = str(entry.get("HostIp") or "")
        address, number = aliases.decode(guest, bindings.single(entry.get("HostPort")))
        entry["HostIp"] = address if address or not guest else EVERYWHERE
        entry["HostPort"] = str(moved.get((proto, number), number))
    for _, entry in _entries((found.get("HostConfig") or {}).get("PortBindings")):
        text = entry.get("HostPort")
        named = bindings.single(text)
        if named:
            entry["HostIp"], number = aliases.decode(str(entry.get("HostIp") or ""), named)
            entry["HostPort"] = "" if bindings.is_chosen(text, number) else str(number)


def _entries(ports: Any) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(ports, dict):
        return []
    return [(bindings.protocol(key), entry) for key, entries in ports.items() for entry in _list(entries)]


def _list(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
