"""ip, version, help."""

from __future__ import annotations

from typing import Any

import click

from launcher import __version__
from launcher.cli.app import App, Verbs
from launcher.cli.options import machine_name, verb
from launcher.errors import NotRunning


@click.command()
@machine_name
@verb
def ip(app: App, name: str | None) -> None:
    """The address at which published ports are reached: curl "$(wherry ip):8080"."""
    from launcher import machine

    address = machine.ip(app.name(name))
    app.console.answer({"ip": address}, address)


@click.command()
@machine_name
@verb
def version(app: App, name: str | None) -> None:
    """Versions of wherry and, when the machine runs, of its engine."""
    from launcher import machine

    try:
        engine: dict[str, Any] | None = machine.engine_version(app.name(name))
    except NotRunning:
        engine = None
    about = f"Docker {engine.get('Version')}, API {engine.get('ApiVersion')}" if engine else "(not running)"
    app.console.answer({"wherry": __version__, "engine": engine}, f"wherry    {__version__}\nengine    {about}")


@click.command("help")
@click.argument("word", required=False, metavar="[VERB]")
@click.pass_context
def help_(ctx: click.Context, word: str | None) -> None:
    """Help for a verb, or for all of it."""
    group = ctx.find_root()
    assert isinstance(group.command, Verbs)
    if word is None:
        click.echo(group.get_help())
        return
    name, command, _ = group.command.resolve_command(group, [word])
    assert command is not None
    with click.Context(command, info_name=name, parent=group) as inner:
        click.echo(command.get_help(inner))
