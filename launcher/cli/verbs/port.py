"""port: list, add, remove."""

from __future__ import annotations

import click

from launcher.cli.app import App
from launcher.cli.options import Words, machine_name, verb
from launcher.console import table


@click.group(cls=Words)
def port() -> None:
    """Ports of this computer that lead into the machine: those that containers publish, and forwards made by hand."""


@port.command("list")
@machine_name
@verb
def list_(app: App, name: str | None) -> None:
    """Container, protocol, address on this computer, the container's own port (of a forward made by hand the machine's), and
    state of every published port."""
    from launcher.machine import ports

    found = ports.listing(app.name(name))
    rows = [
        [
            entry["container"] or "(by hand)",
            entry["protocol"],
            f"[{entry['address']}]:{entry['port']}" if ":" in entry["address"] else f"{entry['address']}:{entry['port']}",
            str(entry.get("inside", entry["guest_port"])),
            entry["state"],
        ]
        for entry in found
    ]
    app.console.answer(found, table(["CONTAINER", "PROTOCOL", "ADDRESS", "INSIDE", "STATE"], rows))


@port.command()
@click.argument("forward", metavar="HOST:[127.0.0.1:]GUEST[/udp]")
@verb
def add(app: App, forward: str) -> None:
    """Forward a port of this computer to one of the machine, until it is removed: wherry port add 5433:5432"""
    from launcher.machine import ports

    ports.change(app.name(None), "add", forward)
    app.console.answer({"added": forward}, "")


@port.command()
@click.argument("forward", metavar="HOST:[127.0.0.1:]GUEST[/udp]")
@verb
def remove(app: App, forward: str) -> None:
    """Take back a forward that was made by hand."""
    from launcher.machine import ports

    ports.change(app.name(None), "remove", forward)
    app.console.answer({"removed": forward}, "")
