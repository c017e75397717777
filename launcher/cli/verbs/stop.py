"""stop."""

from __future__ import annotations

import click

from launcher.cli.app import App
from launcher.cli.options import machine_name, verb


@click.command()
@machine_name
@click.option("--force", is_flag=True, help="Do not wait for containers and file systems: like pulling the plug.")
@verb
def stop(app: App, name: str | None, force: bool) -> None:
    """Shut the machine down: containers get their own stop time, then the file systems are closed."""
    from launcher import machine

    chosen = app.name(name)
    with app.console.telling() as reporter:
        was_running = machine.stop(chosen, force, reporter)
    app.console.answer({"name": chosen, "was_running": was_running}, "")
    app.console.story(f"{chosen} is stopped." if was_running else f"{chosen} was not running.")
