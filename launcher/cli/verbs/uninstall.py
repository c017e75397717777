"""uninstall."""

from __future__ import annotations

import sys
from typing import Any

import click

from launcher.cli.app import App
from launcher.cli.options import verb
from launcher.console import is_terminal, size, table
from launcher.errors import Refused, Usage, WherryError


@click.command()
@click.option("--keep", is_flag=True, help="Keep the machines, and ask nothing.")
@click.option("-y", "--yes", is_flag=True, help="Delete the machines, with all that is on their disks, and ask nothing.")
@verb
def uninstall(app: App, keep: bool, yes: bool) -> None:
    """Take back all that wherry put outside of its own folders: docker contexts (the one before is current again), links,
    login items, sockets. Machines that run are stopped. Then say which machines there are, and ask of each whether it goes.

    With nobody to ask they are kept. What is damaged is kept, whatever is said. How the program itself goes is said last.
    """
    from launcher.machine import program, uninstall

    if keep and yes:
        raise Usage("--keep and --yes are two answers to one question.", hint="wherry uninstall --help")
    silent = keep or yes
    running = uninstall.live()
    if running and not silent:
        _ask_stop(app, running)
    with app.console.telling() as reporter:
        undone = uninstall.undo(reporter)
    _tell(app, undone)
    found = uninstall.machines()
    _list(app, found)
    with app.console.telling() as reporter:
        gone = uninstall.delete(lambda machine: yes or (not keep and _ask_delete(app, machine)), reporter)
        left = uninstall.clear(reporter)
    for name in gone:
        app.console.story(f"{name} is deleted.")
    kept = [machine for machine in found if machine["name"] not in gone]
    _tell_kept(app, kept, left=[str(path) for path in left], asked=yes or keep or _somebody(app))
    remove = program.ways().remove
    app.console.story(f"The program itself goes by:  {remove}")
    if undone.problems:
        raise WherryError(
            "not all of it could be taken back.", detail="\n".join(undone.problems), hint="Then again: wherry uninstall"
        )
    answer = {
        "stopped": undone.stopped, "contexts": undone.contexts, "links": undone.links, "autostart": undone.autostart,
        "deleted": gone, "kept": [_about(machine) for machine in kept], "left": [str(path) for path in left], "program": remove,
    }  # fmt: skip
    app.console.answer(answer, "")


def _about(machine: dict[str, Any]) -> dict[str, Any]:
    return {key: machine[key] for key in ("name", "path", "status", "disk_used")}


def _somebody(app: App) -> bool:
    return not app.settings.json and is_terminal(sys.stdin) and is_terminal(sys.stderr)


def _ask_stop(app: App, running: list[str]) -> None:
    names = ", ".join(running)
    what = f"{names} {'runs' if len(running) == 1 else 'run'}, and would be stopped"
    if not _somebody(app):
        raise Refused(f"{what}; nothing is done.", hint="wherry uninstall --keep stops it, and keeps it with its data")
    if not click.confirm(f"{what}. Go on?", default=False, err=True):
        raise Refused("nothing is done.")


def _tell(app: App, undone: Any) -> None:
    for name in undone.stopped:
        app.console.story(f"{name} is stopped.")
    for name in undone.contexts:
        app.console.story(f"docker context {name} is removed; current: {undone.current}")
    for place in undone.links:
        app.console.story(f"{place} is taken back.")
    for name in undone.autostart:
        app.console.story(f"{name} starts at login no more.")
    for line in undone.problems:
        app.console.warning(line)


def _list(app: App, found: list[dict[str, Any]]) -> None:
    if found:
        rows = [(machine["name"], machine["status"], size(machine["disk_used"]), machine["path"]) for machine in found]
        app.console.story(table(("machine", "status", "size", "folder"), rows))


def _ask_delete(app: App, machine: dict[str, Any]) -> bool:
    if not _somebody(app):
        return False
    what = f"Delete {machine['name']}, with all images, containers and volumes in it ({size(machine['disk_used'])})?"
    return click.confirm(what, default=False, err=True)


def _tell_kept(app: App, kept: list[dict[str, Any]], *, left: list[str], asked: bool) -> None:
    from launcher.machine import uninstall

    for machine in kept:
        why = "" if asked else ": there is nobody to ask"
        if not uninstall.is_whole(machine):
            why = (
                f", as it is {machine['status']}: {machine['problem']}   To delete it: wherry delete --force {machine['name']}"
            )
        app.console.story(f"{machine['name']} is kept{why}.")
    for path in left:
        app.console.story(f"Left: {path}")
