"""repair."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from launcher.cli.app import App
from launcher.cli.options import last_start, machine_name, verb
from launcher.console import is_terminal
from launcher.errors import Usage


@click.command()
@machine_name
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before what cannot be taken back.")
@click.option("--read-only", is_flag=True, help="Start without the engine, the disk mounted read-only, to copy from it.")
@click.option("--new-disk", is_flag=True, help="Make an empty data disk where there is none any more.")
@click.option("--undo", is_flag=True, help="Bring the disk back to what it was before it was repaired.")
@click.option("--forget", is_flag=True, help="Drop what the disk was before it was repaired: gives its space back.")
@verb
def repair(
    app: App, name: str | None, dry_run: bool, yes: bool, read_only: bool, new_disk: bool, undo: bool, forget: bool
) -> int:  # fmt: skip
    """Mend a machine that is broken or whose disk is damaged, and keep its data.

    Says what was found and what was done, one line each. Exit code 0: the machine is whole now, 1: something is left to do.
    A damaged file system is repaired by e2fsck, after the disk was kept as it is, inside of data.qcow2.
    """
    chosen = app.name(name)
    if dry_run + read_only + new_disk + undo + forget > 1:
        raise Usage("one of --dry-run, --read-only, --new-disk, --undo and --forget at a time.")
    if read_only:
        return _read_only(app, chosen)
    if new_disk or undo or forget:
        return _disk(app, chosen, "new_disk" if new_disk else "undo_repair" if undo else "forget_repair")
    return _mend(app, chosen, dry_run=dry_run, yes=yes)


def _mend(app: App, name: str, *, dry_run: bool, yes: bool) -> int:
    from launcher.machine.repair import repair as mend

    with app.console.telling(lambda: last_start(name)) as reporter:
        done = mend(name, reporter, dry_run=dry_run, agree=lambda question: yes or _asked(app, question))
    lines = [step.line() for step in done.steps] or ["nothing is to be mended"]
    app.console.answer({"name": name, "whole": done.whole, **asdict(done)}, "\n".join(lines))
    return 0 if done.whole else 1


def _asked(app: App, question: str) -> bool:
    if app.settings.json or not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        return False
    return click.confirm(question, default=False, err=True)


def _disk(app: App, name: str, what: str) -> int:
    from launcher import machine

    with app.console.telling(lambda: last_start(name)) as reporter:
        getattr(machine, what)(name, reporter)
    app.console.answer({"name": name}, "")
    app.console.story(f"wherry up {name}")
    return 0


def _read_only(app: App, name: str) -> int:
    from launcher import machine

    with app.console.telling(lambda: last_start(name)) as reporter:
        notes = machine.open_read_only(name, reporter).notes
    app.console.answer({"name": name, "notes": notes}, "")
    app.console.story("The disk is mounted read-only at /var/lib/wherry; volumes are in docker/volumes.")
    app.console.story(f"Copy   wherry cp {name}:/var/lib/wherry/docker/volumes DIR")
    app.console.story(f"Then   wherry stop {name}")
    return 0
