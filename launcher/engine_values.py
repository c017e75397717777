"""Values of engine keys that dockerd would refuse, or take without ever using them: looked at before they are written.

What dockerd checks is in its daemon/config and registry/config.go; a key that is not here is its own to judge, at its next
start.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from launcher.config import BadValue

# A host name or an address with a port, or without one.
_PLACE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?")
_PROXIES: Final = ("http-proxy", "https-proxy", "no-proxy")


def check(engine: Mapping[str, Any]) -> None:
    """Raises BadValue for the first one that cannot be."""
    for key, value in engine.items():
        judge = _JUDGES.get(key)
        if judge is not None:
            judge(f"engine.{key}", value)


def _texts(name: str, value: Any, example: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadValue(name, f"{name} is a list of texts.", hint=f"""wherry config set {name} '["{example}"]'""")
    return value


def _insecure(name: str, value: Any) -> None:
    for item in _texts(name, value, "registry.example.com:5000"):
        match = _PLACE.fullmatch(item)
        if not (match and int(match[1] or 1) in range(1, 65536)) and not _is_network(item):
            raise BadValue(
                name, f"{name}: {item!r} is no registry: HOST, HOST:PORT or a network such as 10.1.0.0/16, without http://."
            )


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _mirrors(name: str, value: Any) -> None:
    for item in _texts(name, value, "https://mirror.example.com"):
        parts = _web(item)
        if parts is None or parts.query or parts.fragment or "@" in parts.netloc:
            # The value is not repeated: it may hold a password.
            raise BadValue(name, f"{name}: not a mirror's address: http:// or https://, a host, no user and no query.")


def _proxies(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise BadValue(name, f"{name} is a table.", hint=f"wherry config set {name}.http-proxy http://proxy.example.com:3128")
    for key, text in value.items():
        if key not in _PROXIES:
            raise BadValue(f"{name}.{key}", f"unknown key {name}.{key}: {', '.join(_PROXIES)}.")
        if not isinstance(text, str) or (key != "no-proxy" and text and _web(text) is None):
            raise BadValue(f"{name}.{key}", f"{name}.{key} is no proxy's address: http://HOST:PORT or https://HOST:PORT.")


def _web(text: str) -> Any:
    """The parts of an http or https address; None for what is none."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    return parts if usable and not re.search(r"[\s\x00-\x1f\x7f]", text) else None


def _servers(name: str, value: Any) -> None:
    for item in _texts(name, value, "192.168.1.1"):
        try:
            ipaddress.ip_address(item)
        except ValueError:
            raise BadValue(name, f"{name}: {item!r} is no address of a name server.") from None


_JUDGES: Final[Mapping[str, Callable[[str, Any], None]]] = {
    "insecure-registries": _insecure,
    "registry-mirrors": _mirrors,
    "proxies": _proxies,
    "dns": _servers,
}
