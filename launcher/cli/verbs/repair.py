"""repair."""

from __future__ import annotations

import click

from launcher.cli.app import App
from launcher.cli.options import last_start, machine_name, verb
from launcher.errors import Usage


@click.command()
@machine_name
@click.option("--read-only", is_flag=True, help="Start without the engine, the disk mounted read-only, to copy from it.")
@click.option("--new-disk", is_flag=True, help="Make an empty data disk where there is none any more.")
@click.option("--undo", is_flag=True, help="Bring the disk back to what it was before it was repaired.")
@click.option("--forget", is_flag=True, help="Drop what the disk was before it was repaired: gives its space back.")
@verb
def repair(app: App, name: str | None, read_only: bool, new_disk: bool, undo: bool, forget: bool) -> None:
    """Mend a machine that is broken or whose disk is damaged, and keep its data. The machine must be off.

    A damaged file system is repaired by e2fsck, after the disk was kept as it is, inside of data.qcow2.
    """
    from launcher import machine

    chosen = app.name(name)
    if read_only + new_disk + undo + forget > 1:
        raise Usage("one of --read-only, --new-disk, --undo and --forget at a time.")
    with app.console.telling(lambda: last_start(chosen)) as reporter:
        if read_only:
            result = machine.open_read_only(chosen, reporter)
        elif new_disk:
            machine.new_disk(chosen, reporter)
        elif undo:
            machine.undo_repair(chosen, reporter)
        elif forget:
            machine.forget_repair(chosen, reporter)
        else:
            done = machine.repair(chosen, reporter)
    if read_only:
        _tell_read_only(app, chosen, result.notes)
    elif new_disk or undo or forget:
        app.console.answer({"name": chosen}, "")
        app.console.story(f"wherry up {chosen}")
    else:
        app.console.answer({"name": chosen, "done": done}, "")
        for line in done or ["nothing was to be mended"]:
            app.console.story(line)


def _tell_read_only(app: App, name: str, notes: list[str]) -> None:
    app.console.answer({"name": name, "notes": notes}, "")
    app.console.story("The disk is mounted read-only at /var/lib/wherry; volumes are in docker/volumes.")
    app.console.story(f"Copy   wherry cp {name}:/var/lib/wherry/docker/volumes DIR")
    app.console.story(f"Then   wherry stop {name}")
