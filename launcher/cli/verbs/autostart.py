"""autostart: enable, disable, status."""

from __future__ import annotations

import click

from launcher.cli.app import App
from launcher.cli.options import Words, machine_name, verb


@click.group(cls=Words)
def autostart() -> None:
    """Have a machine there from login on. Nothing of the kind is ever done unasked."""


@autostart.command()
@machine_name
@click.option("--now", is_flag=True, help="Start the machine at login; else its first use does.")
@verb
def enable(app: App, name: str | None, now: bool) -> None:
    """From the next login on: hold the engine's socket, and start or resume the machine when somebody connects to it.

    At the end of the session the machine is stopped. With --now it starts at login.
    """
    from launcher.machine import autostart as starting

    chosen = app.name(name)
    place = starting.enable(chosen, now=now)
    app.console.answer({"name": chosen, "enabled": True, "now": now, "place": place}, "")
    what = "starts at login" if now else "starts with the first use of its socket after a login"
    app.console.story(f"{chosen} {what} ({place}).   wherry autostart disable{_argument(chosen)}")


@autostart.command()
@machine_name
@verb
def disable(app: App, name: str | None) -> None:
    """From the next login on it starts no more; a machine that runs goes on."""
    from launcher.machine import autostart as starting
    from launcher.machine.settings import existing

    chosen = app.name(name)
    was = starting.disable(existing(chosen))
    app.console.answer({"name": chosen, "enabled": False, "was": was}, "")
    app.console.story(f"{chosen} starts at login no more." if was else f"{chosen} did not start at login.")


@autostart.command()
@machine_name
@verb
def status(app: App, name: str | None) -> None:
    """Whether it starts at login, or with its first use after that."""
    from launcher.machine import autostart as starting

    chosen = app.name(name)
    found = starting.status(chosen)
    told = "enabled, at login" if found.now else "enabled, with its first use" if found.enabled else "disabled"
    app.console.answer({"name": chosen, **found._asdict()}, told)


def _argument(name: str) -> str:
    return "" if name == "default" else f" {name}"
