"""cp: files and folders between this computer and the machine, with docker cp's rules."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli.app import App
from launcher.cli.options import verb
from launcher.cli.transfer import Place, copy_in, copy_out
from launcher.errors import Usage
from launcher.store import check_name


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@verb
def cp(app: App, source: str, target: str) -> None:
    """Copy SRC to DST; one of them is NAME:path, in the machine of that name.

    As with docker cp: a folder goes into a folder that is there, or becomes one that is not; SRC/. is what is in it.
    """
    from launcher import machine

    here, there = place(app, source), place(app, target)
    if (here.machine is None) == (there.machine is None):
        raise Usage("one side of cp is in a machine, the other one here.", hint="wherry cp FILE default:/root/")
    name = here.machine or there.machine or ""
    with app.console.telling() as reporter:
        control = machine.control_path(name, reporter, False)
        if there.machine is not None:
            copy_in(control, here.path, there, reporter)
        else:
            copy_out(control, here, there.path, reporter)
    app.console.answer({"source": source, "target": target}, "")


def place(app: App, text: str) -> Place:
    """A side of the copy: a colon behind a machine's name, before any slash, says "in the machine"."""
    before, colon, path = text.partition(":")
    if not colon or "/" in before or "\\" in before or Path(text).drive:
        return Place(None, text)
    return Place(check_name(before) if before else app.name(), path or ".")
