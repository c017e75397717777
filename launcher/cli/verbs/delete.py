"""delete."""

from __future__ import annotations

import sys

import click

from launcher.cli.app import App
from launcher.cli.options import machine_name, verb
from launcher.console import is_terminal
from launcher.errors import Refused


@click.command()
@machine_name
@click.option("--force", is_flag=True, help="Also while it runs: it is stopped first.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@verb
def delete(app: App, name: str | None, force: bool, yes: bool) -> None:
    """Delete a machine and everything on its disk: images, containers, volumes, logins. Asks first, and names what goes."""
    from launcher import machine

    chosen = app.name(name)
    goes = machine.what_delete_removes(chosen)
    found = machine.status(chosen)
    if not force and found["status"] == "newer":
        raise Refused(found["problem"], hint=f"To delete it all the same: wherry delete --force {chosen}")
    if not force and found["status"] not in ("stopped", "suspended", "broken"):
        raise Refused(f"{chosen} is running.", hint=f"wherry stop {chosen}, or: wherry delete --force {chosen}")
    if not yes:
        _ask(app, chosen, goes)
    with app.console.telling() as reporter:
        machine.delete(chosen, force, reporter)
    app.console.answer({"name": chosen, "removed": goes}, "")
    app.console.story(f"{chosen} is deleted.")


def _ask(app: App, name: str, goes: list[str]) -> None:
    if app.settings.json or not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise Refused(
            f"{name} is not deleted: there is nobody to ask.", detail="\n".join(goes), hint=f"wherry delete --yes {name}"
        )
    click.echo("This is deleted for good:", err=True)
    for line in goes:
        click.echo(f"  {line}", err=True)
    if not click.confirm(f"Delete {name}?", default=False, err=True):
        raise Refused(f"{name} is not deleted.")
