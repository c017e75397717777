"""A machine's published ports, and forwards made by hand."""

from __future__ import annotations

from typing import Any

from launcher import control, store
from launcher.errors import NoSuchMachine


def _socket(name: str) -> Any:
    directory = store.machine(name)
    if not directory.exists():
        raise NoSuchMachine(f"there is no machine {name!r}.", hint="wherry list")
    return directory.control_socket


def listing(name: str) -> list[dict[str, Any]]:
    """One entry for each address and port: container, protocol, address, port, guest_port, inside, state. Raises NotRunning."""
    keeper = control.status(_socket(name)).get("keeper", {})
    found: list[dict[str, Any]] = keeper.get("ports", [])
    return found


def change(name: str, action: str, forward: str) -> None:
    """`add` or `remove` a forward, [ADDRESS:]HOST:GUEST[/udp]. Raises WherryError."""
    control.ask(_socket(name), "port", action=action, forward=forward)
