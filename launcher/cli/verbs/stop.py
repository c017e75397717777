"""stop and suspend."""

from __future__ import annotations

from dataclasses import asdict

import click

from launcher.cli.app import App
from launcher.cli.options import machine_name, verb
from launcher.console import seconds, size


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
    app.console.story(f"{chosen} is stopped." if was_running else _not_running(chosen))


@click.command()
@machine_name
@verb
def suspend(app: App, name: str | None) -> None:
    """Save the machine to the disk and end it. `up` resumes it in a moment: its containers go on where they were."""
    from launcher import machine

    chosen = app.name(name)
    with app.console.telling() as reporter:
        done = machine.suspend(chosen, reporter)
    app.console.answer(asdict(done), "")
    took = "" if done.already else f" in {seconds(done.seconds)}"
    argument = "" if chosen == "default" else f" {chosen}"
    app.console.story(f"{chosen} is suspended ({size(done.size)}{took}).   wherry up{argument} resumes it")


def _not_running(name: str) -> str:
    from launcher import machine

    argument = "" if name == "default" else f" {name}"
    if machine.status(name)["status"] == "suspended":
        return f"{name} is suspended; nothing of it runs.   wherry up{argument} resumes it, up --cold gives its memory up"
    return f"{name} was not running."
