"""iso: list, pull, import, build, verify, prune."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.app import App
from launcher.cli.options import Words, verb
from launcher.console import is_terminal, size, table
from launcher.errors import IsoProblem, Refused

if TYPE_CHECKING:
    from launcher.images.prune import Item

_arch = click.option("--arch", type=click.Choice(["amd64", "arm64"]), help="Its architecture; by default this computer's.")


@click.group(cls=Words)
def iso() -> None:
    """The images that machines are made from: each is kept once, by its SHA-256, and never changed."""


@iso.command("list")
@verb
def list_(app: App) -> None:
    """The ISOs that are here, where they came from, and which machines need them; with -q their SHA-256 only."""
    from launcher.machine import isos

    found = isos.list_isos()
    if app.settings.quiet and not app.settings.json:
        app.console.answer(found, "\n".join(item["sha256"] for item in found))
        return
    head = ("iso", "arch", "version", "built", "size", "from", "machines")
    app.console.answer(found, table(head, [_row(item) for item in found]) if found else "")
    if not found:
        app.console.story("There is no ISO yet; wherry up gets one.")
    for item in found:
        if item["problem"]:
            app.console.warning(item["problem"])
    for arch in isos.missing_pins():
        app.console.story(f"This release's ISO for {arch} is not here.   wherry iso pull --arch {arch}")


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    if item["problem"]:
        return item["sha256"][:12], "-", "-", "damaged", "-", item["origin"] or "-", ", ".join(item["machines"]) or "-"
    age = {None: "-", 0: "today", 1: "yesterday"}.get(item["age_days"], f"{item['age_days']} days ago")
    built = f"{item['built'][:10]}, {age}" if item["age_days"] is not None else "-"
    marks = [item["origin"] or "-"] + ["pinned"] * item["pinned"] + ["unlocked"] * (item["unlocked"] is True)
    return (
        item["sha256"][:12], item["architecture"], item["version"], built, size(item["size"]), ", ".join(marks),
        ", ".join(item["machines"]) or "-",
    )  # fmt: skip


@iso.command()
@click.argument("source", required=False, metavar="[URL#sha256=...]")
@_arch
@verb
def pull(app: App, source: str | None, arch: str | None) -> None:
    """Fetch this release's ISO, or the one at an address, unless it is here. Goes on with what a broken-off one left."""
    from launcher.machine import isos

    with app.console.telling() as reporter:
        found = isos.pull(source, arch, reporter)
    _here(app, found)


@iso.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@verb
def import_(app: App, file: Path) -> None:
    """Take an ISO file into the cache, without any network. It is checked against the manifest beside it, FILE.json."""
    from launcher.machine import isos

    with app.console.telling() as reporter:
        found = isos.import_iso(file, reporter)
    _here(app, found)


@iso.command()
@_arch
@click.option("--fast", is_flag=True, help="Light compression, for work on the image itself.")
@verb
def build(app: App, arch: str | None, fast: bool) -> None:
    """Build the ISO here from Debian packages, on Linux; takes minutes."""
    from launcher.machine import isos

    with app.console.telling() as reporter:
        found = isos.build(arch, reporter, shown=_shown(app), fast=fast)
    _here(app, found)


def _shown(app: App) -> bool:
    return not (app.settings.quiet or app.settings.json)


def _here(app: App, found: dict[str, Any]) -> None:
    app.console.answer(found, found["sha256"])
    app.console.story(f"wherry {found['version']} {found['architecture']}, {size(found['size'])}, is here.")


@iso.command()
@click.argument("what", required=False, metavar="[FILE|SHA256]")
@click.option("--rebuild", is_flag=True, help="Build it again by its lock and compare; minutes. By default the machine's.")
@verb
def verify(app: App, what: str | None, rebuild: bool) -> int:
    """Whether ISOs are what their manifests say, and whether what was taken out of them is: all that are here, or one.

    SHA256: the beginning of it will do.
    """
    from launcher.machine import isos

    with app.console.telling() as reporter:
        if rebuild:
            again = isos.rebuild(what, app.name(), reporter, shown=_shown(app))
        else:
            verdicts = isos.verify(what, reporter)
    if rebuild:
        outcome = "the same" if again.same else "NOT the same"
        lines = [f"its      {again.expected}", f"rebuilt  {again.sha256}", outcome]
        app.console.answer(asdict(again), "\n".join(lines))
        for note in again.notes:
            app.console.story(f"Note: {note}.")
        return 0 if again.same else IsoProblem.exit_code
    data = [asdict(verdict) | {"ok": not verdict.problems} for verdict in verdicts]
    rows = [(item.name, item.arch or "-", item.version or "-", "damaged" if item.problems else "ok") for item in verdicts]
    app.console.answer(data, table(("iso", "arch", "version", "is"), rows) if rows else "")
    if not rows:
        app.console.story("There is no ISO here.")
    for verdict in verdicts:
        for problem in verdict.problems:
            app.console.warning(f"{verdict.name}: {problem}.")
        if verdict.unlocked:
            app.console.story(f"{verdict.name} was built from other packages than its lock named (unlocked).")
    return IsoProblem.exit_code if any(verdict.problems for verdict in verdicts) else 0


@iso.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@verb
def prune(app: App, yes: bool) -> None:
    """Remove the ISOs that no machine needs, and what killed downloads left. Asks first, and names what goes."""
    from launcher.machine import isos

    with app.console.telling() as reporter:
        removed = isos.prune(_asking(app, yes), reporter)
    if removed is None:
        raise Refused("nothing is removed.")
    data = [{"path": str(item.path), "size": item.size, "what": item.what} for item in removed]
    freed = sum(item.size for item in removed)
    app.console.answer({"removed": data, "bytes": freed}, "")
    app.console.story(f"{size(freed)} are free again." if removed else "There is nothing to remove.")


def _asking(app: App, yes: bool) -> Callable[[list[Item], dict[str, str]], bool]:
    def ask(goes: list[Item], keep: dict[str, str]) -> bool:
        lines = [f"{size(item.size):>8}   {item.what}" for item in goes]
        if yes:
            return True
        if app.settings.json or not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
            raise Refused("nothing is removed: there is nobody to ask.", detail="\n".join(lines), hint="wherry iso prune --yes")
        click.echo("This is removed:", err=True)
        for line in lines:
            click.echo(f"  {line}", err=True)
        for sha256, why in keep.items():
            click.echo(f"  {'stays':>8}   ISO {sha256[:12]}, {why}", err=True)
        return click.confirm("Remove it?", default=False, err=True)

    return ask
