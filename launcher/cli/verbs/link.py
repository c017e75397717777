"""link and unlink: docker, socket."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from launcher import host
from launcher.cli.app import App
from launcher.cli.options import Words, machine_name, verb

if TYPE_CHECKING:
    from launcher.machine.links import Kind


@click.group(cls=Words)
def link() -> None:
    """Lead to a machine what other programs find by themselves. Nothing of the kind is ever done unasked."""


@click.group(cls=Words)
def unlink() -> None:
    """Take back what `wherry link` made; what was there before comes back."""


@link.command("docker")
@machine_name
@verb
def link_docker(app: App, name: str | None) -> None:
    """A `docker` on PATH that is `wherry docker`, where there is no other docker."""
    chosen = app.name(name)
    for place in _link(app, "docker", chosen):
        app.console.story(f"{place} is wherry's docker now, for {chosen}.   wherry unlink docker")


@link.command("socket")
@machine_name
@verb
def link_socket(app: App, name: str | None) -> None:
    """The sockets where libraries look that read no context: ~/.docker/run/docker.sock, on Linux in $XDG_RUNTIME_DIR too.

    What another program has there is put aside until `wherry unlink socket`.
    """
    places = _link(app, "socket", app.name(name))
    for place in places:
        app.console.story(f"{place} leads to {app.name(name)} now.   wherry unlink socket")
    usual = host.current().docker_socket()
    if usual.resolve() not in {Path(place).resolve() for place in places}:
        command = shlex.join(["sudo", "ln", "-s", *([places[0]] if places else []), str(usual)])
        app.console.story(f"{usual} is an administrator's; where a program looks only there: {command}")


@unlink.command("docker")
@verb
def unlink_docker(app: App) -> None:
    """Remove wherry's `docker` from PATH."""
    _unlink(app, "docker")


@unlink.command("socket")
@verb
def unlink_socket(app: App) -> None:
    """Remove the links at the usual sockets, and put back what was there."""
    _unlink(app, "socket")


def _link(app: App, kind: Kind, name: str) -> list[str]:
    from launcher.machine import links

    places = [item.place for item in links.link(kind, name)]
    app.console.answer({"linked": places, "machine": name}, "")
    return places


def _unlink(app: App, kind: Kind) -> None:
    from launcher.machine import links

    places = [item.place for item in links.unlink(kind)]
    app.console.answer({"unlinked": places}, "")
    told = f"unlinked: {', '.join(places)}" if places else f"there is no link of {kind} to take back."
    app.console.story(told)
