"""ip, version, help."""

from __future__ import annotations

from typing import Any

import click

from launcher.cli.app import App
from launcher.cli.options import machine_name, verb


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
    """Versions of wherry, of the machine's ISO with its age, and, when it runs, of its engine."""
    from launcher.machine import about

    found = about.versions(app.name(name))
    app.console.answer(found, "\n".join(_lines(found)))
    for warning in found["warnings"]:
        app.console.story(f"wherry: {warning}")


def _lines(found: dict[str, Any]) -> list[str]:
    engine = found["engine"]
    about = f"Docker {engine.get('Version')}, API {engine.get('ApiVersion')}" if engine else "(not running)"
    lines = [f"wherry    {found['wherry']}", f"engine    {about}"]
    if found["iso"]:
        lines.append(f"iso       {iso_line(found['iso'])}")
    if found["release_iso"]:
        lines.append(f"release   {iso_line(found['release_iso'])}{'   wherry upgrade' if found['iso'] else ''}")
    return lines


def iso_line(iso: dict[str, Any]) -> str:
    """An ISO as one says it: version, architecture, date, age."""
    days = iso["days"]
    age = "age unknown" if days is None else "built today" if days == 0 else f"{days} day{'' if days == 1 else 's'} old"
    return f"{iso['version']} {iso['arch']} {iso['sha256'][:12]} · {iso['built'][:10] or 'no date'} · {age}"


@click.command("help")
@click.argument("words", nargs=-1, metavar="[VERB [WORD]]")
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Help for a verb, or for all of it."""
    context = ctx.find_root()
    rest = list(words)
    # A verb without words of its own has the help that there is for what follows it: wherry help run IMAGE.
    while rest and isinstance(context.command, click.Group):
        name, command, rest = context.command.resolve_command(context, rest)
        assert command is not None
        context = click.Context(command, info_name=name, parent=context)
    click.echo(context.get_help())
