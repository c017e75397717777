"""context: create, use, remove."""

from __future__ import annotations

import click

from launcher.cli.app import App
from launcher.cli.options import Words, machine_name, verb


@click.group(cls=Words)
def context() -> None:
    """The docker context of a machine, `wherry` or `wherry-NAME`: docker, compose and IDEs here reach it by that."""


@context.command()
@machine_name
@verb
def create(app: App, name: str | None) -> None:
    """Make the context; which one is current stays as it is."""
    from launcher.machine import context as contexts

    made = contexts.create(app.name(name))
    app.console.answer({"context": made}, "")
    app.console.story(f"docker context {made} is there.   docker context use {made}")


@context.command()
@machine_name
@verb
def use(app: App, name: str | None) -> None:
    """Make the context current: docker goes to the machine from now on, in every terminal."""
    from launcher.machine import context as contexts

    chosen = app.name(name)
    before = contexts.use(chosen)
    made = contexts.context_name(chosen)
    app.console.answer({"context": made, "before": before}, "")
    app.console.story(f"docker context {made} is current" + (f" (was: {before})" if before else " already"))


@context.command()
@machine_name
@verb
def remove(app: App, name: str | None) -> None:
    """Remove the context, and make current the one that was before it."""
    from launcher.machine import context as contexts

    chosen = app.name(name)
    removed, current = contexts.remove(chosen)
    made = contexts.context_name(chosen)
    app.console.answer({"context": made, "removed": removed, "current": current}, "")
    told = f"docker context {made} is removed; current: {current}" if removed else f"there was no docker context {made}."
    app.console.story(told)
