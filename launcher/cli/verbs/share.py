"""share: list, add, remove; and the lines about shares of `up` and `status`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.app import App
from launcher.cli.options import Words, machine_name, verb
from launcher.console import table
from launcher.errors import WherryError

if TYPE_CHECKING:
    from launcher.machine.shares import Done


def _complete_added(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The folders that can be taken back, as they are written down."""
    import os

    from launcher import sharing, store

    name = ctx.params.get("machine_") or ctx.find_root().params.get("machine") or os.environ.get("WHERRY_MACHINE") or "default"
    try:
        folders = [sharing.split(entry)[0] for entry in store.machine(name).read_config().shares.folders]
    except WherryError:
        return []
    return [path for path in folders if path.startswith(incomplete) or sharing.shown(path).startswith(incomplete)]


@click.group(cls=Words)
def share() -> None:
    """Folders of this computer that the machine has, at the same path. What is changed holds at once."""


@share.command("list")
@machine_name
@verb
def list_(app: App, name: str | None) -> None:
    """Every share: the folder, whether it can be written, where the machine has it, how it does, and how many private places
    in it are hidden; and which those are."""
    from launcher.machine import shares

    found = shares.listing(app.name(name))
    heads = ["FOLDER", "MODE", "IN THE MACHINE", "STATE", "HIDDEN"]
    rows = [[item["path"], _mode(item), _place(item, found), _state(item), str(item["hidden"] or "-")] for item in found]
    if any(item.get("virtiofs") or item.get("why") for item in found):
        heads.append("VIRTIOFS")
        for row, item in zip(rows, found, strict=True):
            row.append("yes" if item.get("virtiofs") else f"no: {item['why']}" if item.get("why") else "-")
    private = ", ".join(place for item in found for place in item.get("private", []))
    text = table(heads, rows)
    app.console.answer(found, f"{text}\n\nHidden: {private}" if private else text)


@share.command()
@click.argument("folder", metavar="PATH[:ro]", type=click.Path(readable=False))
@verb
def add(app: App, folder: str) -> None:
    """Share a folder, or change how it is shared; with :ro it is only read. A private one (~/.aws) is shared by its name."""
    from launcher import sharing
    from launcher.machine import shares

    chosen = app.name(None)
    done = shares.add(chosen, *sharing.split(folder))
    app.console.answer(_answer("added", done), "")
    app.console.story(done.why or f"{sharing.shown(done.path)} is shared with {chosen}, {_word(done.read_only)}{_when(done)}.")
    if done.again:
        app.console.story("Containers that have it already must be started again.")


@share.command()
@click.argument("folder", metavar="PATH", shell_complete=_complete_added)
@verb
def remove(app: App, folder: str) -> None:
    """Take back a share. Containers that use it see errors."""
    from launcher import sharing
    from launcher.machine import shares

    chosen = app.name(None)
    done = shares.remove(chosen, sharing.split(folder)[0])
    app.console.answer(_answer("removed", done), "")
    app.console.story(done.why or f"{sharing.shown(done.path)} is no share of {chosen} any more{_when(done)}.")


def share_lines(name: str) -> list[str]:
    """The shares of a machine, a line for each; none when they cannot be known."""
    from launcher.machine import shares

    try:
        return lines_of(shares.listing(name))
    except WherryError:
        return []


def lines_of(found: list[dict[str, Any]]) -> list[str]:
    """`shares    /Users/ana (read-write, 9 private places hidden)`; what lies in another share is none of its own."""
    lines: list[str] = []
    for item in found:
        if item["inside"]:
            continue
        facts = [_mode(item)]
        if item.get("virtiofs"):
            facts.append("virtiofs")
        if item["hidden"]:
            facts.append(f"{item['hidden']} private {'place' if item['hidden'] == 1 else 'places'} hidden")
        if item["state"] == "failed":
            facts.append(f"FAILED: {item['detail']}")
        lines.append(f"{'' if lines else 'shares':<10}{item['path']} ({', '.join(facts)})")
    return lines


def _answer(key: str, done: Done) -> dict[str, Any]:
    return {key: done.path, **{name: value for name, value in asdict(done).items() if name != "path"}}


def _when(done: Done) -> str:
    return "" if done.running else " from its next start on"


def _mode(item: dict[str, Any]) -> str:
    return _word(item["read_only"])


def _word(read_only: bool) -> str:
    return "read-only" if read_only else "read-write"


def _place(item: dict[str, Any], found: list[dict[str, Any]]) -> str:
    around = next((other["path"] for other in found if item["inside"] and other["id"] == item["inside"]), "")
    return f"in {around}" if around else ", ".join([item["guest"], *item["aliases"]])


def _state(item: dict[str, Any]) -> str:
    return f"{item['state']} ({item['detail']})" if item["detail"] else str(item["state"])
