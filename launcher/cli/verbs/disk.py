"""disk: info, grow, reclaim, backup, restore."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.app import App, complete_machine
from launcher.cli.options import Size, Words, machine_name, verb
from launcher.console import is_terminal, memory, size
from launcher.errors import Refused, Usage

if TYPE_CHECKING:
    from launcher.machine.backups import Restore
    from launcher.machine.storage import Facts

# [NAME] before a word that must be there: click fills what is optional first, unless it takes any number.
optional_name = click.argument("names", nargs=-1, metavar="[NAME]", shell_complete=complete_machine)


def name_of(app: App, names: tuple[str, ...]) -> str:
    if len(names) > 1:
        raise Usage(f"one machine at a time: {' '.join(names)}.")
    return app.name(*names)


def check_file(word: str, names: tuple[str, ...], file: Path) -> None:
    """A machine's name and no file: the name would be taken for one."""
    from launcher import store

    if not names and str(file) in [found.name for found in store.machines()] and not file.exists():
        raise Usage(f"{file} is a machine, and the file is missing.", hint=f"wherry disk {word} {file} FILE")


@click.group(cls=Words)
def disk() -> None:
    """A machine's data disk: everything that is made in it."""


@disk.command(short_help="What it holds, and takes on this computer.")
@machine_name
@verb
def info(app: App, name: str | None) -> None:
    """What the disk holds, what it takes on this computer, and what it may grow to."""
    from launcher.machine import storage

    found = storage.info(app.name(name))
    app.console.answer(_values(found), "\n".join(_lines(found)))


def _values(found: Facts) -> dict[str, Any]:
    return {**asdict(found), "used": found.used}


def _lines(found: Facts) -> list[str]:
    lines = [f"file      {found.path}", f"takes     {size(found.taken)} here, {size(found.free_here)} are free beside it"]
    if found.used is None or found.total is None:
        lines.append(f"size      {memory(found.size)}; how much of it is used can be told while the machine runs")
    else:
        lines.append(f"size      {memory(found.size)}, {size(found.used)} of it used, {size(found.free or 0)} free")
    if found.snapshots:
        lines.append(f"kept      in the file, from before a repair; wherry repair --forget {found.name} gives its space back")
    return lines + [f"copy      {path}   {size(taken)}" for path, taken in found.copies]


@disk.command(short_help="Make it larger: wherry disk grow 200G")
@optional_name
@click.argument("wanted", metavar="SIZE", type=Size())
@verb
def grow(app: App, names: tuple[str, ...], wanted: int) -> None:
    """Make the disk larger, while the machine runs too: wherry disk grow 200G"""
    from launcher.machine import storage

    chosen = name_of(app, names)
    with app.console.telling() as reporter:
        grown = storage.grow(chosen, wanted, reporter)
    app.console.answer({"name": chosen, **asdict(grown)}, "")
    if grown.total is None:
        app.console.story(f"The disk has {memory(grown.size)}; the file system in it follows at the next start.")
    else:
        app.console.story(f"The disk has {memory(grown.size)}, and the file system in it {memory(grown.total)}.")


@disk.command(short_help="Give the space back that is not used.")
@machine_name
@verb
def reclaim(app: App, name: str | None) -> None:
    """Give the space back that the machine does not use any more."""
    from launcher.machine import storage

    chosen = app.name(name)
    with app.console.telling() as reporter:
        done = storage.reclaim(chosen, reporter)
    app.console.answer({"name": chosen, "given_back": done.given_back, **asdict(done)}, "")
    app.console.story(f"{size(done.given_back)} given back; the disk takes {size(done.after)} here.")


@disk.command(short_help="Copy all of it to FILE.")
@optional_name
@click.argument("file", type=click.Path(path_type=Path))
@verb
def backup(app: App, names: tuple[str, ...], file: Path) -> None:
    """Copy everything in the disk to FILE, a qcow2 disk; the machine may go on meanwhile."""
    from launcher.machine import backups

    check_file("backup", names, file)
    chosen = name_of(app, names)
    with app.console.telling() as reporter:
        done = backups.backup(chosen, file, reporter)
    app.console.answer({"name": chosen, **asdict(done)}, "")
    app.console.story(f"{done.file} has everything of {chosen} ({size(done.size)}).")
    app.console.story(f"Back   wherry disk restore {chosen} {shlex.quote(done.file)}")


@disk.command(short_help="Let it be what FILE has.")
@optional_name
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-y", "--yes", is_flag=True, help="Do not ask before the disk is replaced.")
@verb
def restore(app: App, names: tuple[str, ...], file: Path, yes: bool) -> None:
    """Let the disk be what FILE has; everything that the machine has now goes, so it asks first."""
    from launcher.machine import backups

    check_file("restore", names, file)
    planned = backups.plan(name_of(app, names), file)
    if planned.before is not None and not yes:
        _ask(app, planned)
    with app.console.telling() as reporter:
        backups.restore(planned, reporter)
    app.console.answer({"name": planned.name, "file": str(planned.file), "size": planned.size}, "")
    app.console.story(f"{planned.name} has the disk of {planned.file}.   wherry up {planned.name}")


def _ask(app: App, planned: Restore) -> None:
    what = f"the disk of {planned.name}, with all of its images, containers and volumes ({size(planned.before or 0)} here)"
    if app.settings.json or not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise Refused(
            f"{what} would be replaced, and there is nobody to ask.",
            hint=f"wherry disk restore --yes {planned.name} {shlex.quote(str(planned.file))}",
        )
    if not click.confirm(f"This deletes {what}. Go on?", default=False, err=True):
        raise Refused(f"the disk of {planned.name} is as it was.")
