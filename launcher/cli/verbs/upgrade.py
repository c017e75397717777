"""upgrade."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.app import App
from launcher.cli.options import IsoParam, last_start, machine_name, verb
from launcher.console import Console, is_terminal, seconds, size, table
from launcher.errors import Refused, Usage

if TYPE_CHECKING:
    from launcher.images import IsoSource
    from launcher.machine.upgrade import Done, Plan


@click.command()
@machine_name
@click.option("--iso", type=IsoParam(), metavar="FILE|URL#sha256=…", help="Move to this ISO; an address needs its hash.")
@click.option("--rollback", is_flag=True, help="Go back to the ISO before.")
@click.option("--check", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--copy/--no-copy", default=None, help="Copy the data disk before; with --rollback: put that copy back.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before a running machine is restarted.")
@verb
def upgrade(
    app: App, name: str | None, iso: IsoSource | None, rollback: bool, check: bool, copy: bool | None, yes: bool
) -> None:
    """Move a machine to this release's ISO; it keeps the one it has until then. Its disk is never touched.

    A machine that runs is restarted: containers stop, and come back by their restart policies. When it does not become ready it
    goes back by itself.
    """
    from launcher.machine import upgrade as moves

    if rollback and iso is not None:
        raise Usage("--rollback goes back to the ISO before; --iso names another one.")
    chosen, console = app.name(name), app.console
    pin = moves.to_fetch(chosen) if check and not rollback and iso is None else None
    if pin is not None:
        told = f"{chosen}: this release's ISO is not here yet ({size(pin.size)}); wherry iso pull fetches it."
        console.answer({"name": chosen, "rollback": False, "iso": {"now": None, "then": pin.sha256}, "fetch": pin.size}, told)
        return
    with console.telling() as reporter:
        wanted = moves.plan_back(chosen) if rollback else moves.plan(chosen, iso, reporter)
    if wanted.nothing:
        console.answer(_data(wanted), f"{chosen} has this ISO: {_title(wanted.new.manifest, wanted.new.sha256)}")
        return
    lines = _lines(wanted)
    if check:
        console.answer(_data(wanted), "\n".join(lines))
        return
    for line in lines:
        console.story(line)
    answer = _Answers(app, wanted, yes)
    with_copy = answer.copy(copy)
    moves.check(wanted, with_copy)
    answer.restart()
    with console.telling(lambda: last_start(chosen)) as reporter:
        done = moves.carry_out(wanted, with_copy, reporter)
    console.answer({**_data(wanted), "copy": done.copy or None, "aside": done.aside or None}, "")
    _tell(console, wanted, done)


def _tell(console: Console, wanted: Plan, done: Done) -> None:
    if done.copy:
        console.story(f"The disk as it was is {done.copy}; delete that file when you do not want to go back.")
    if done.aside:
        console.story(f"The disk as it was until now is {done.aside}; delete that file when you do not want it.")
    way = "is back at" if wanted.back else "has"
    told = f"{wanted.name} {way} {_title(wanted.new.manifest, wanted.new.sha256)}"
    if not wanted.running:
        console.story(f"{told}, from its next start on.")
    else:
        console.story(f"{told}. Ready in {seconds(done.started['seconds'])}")


class _Answers:
    """What the user wants, by an option or asked for; a script that did not say it is refused."""

    def __init__(self, app: App, wanted: Plan, yes: bool) -> None:
        self._wanted = wanted
        self._yes = yes
        self._asks = not app.settings.json and is_terminal(sys.stdin) and is_terminal(sys.stderr)

    def copy(self, said: bool | None) -> bool:
        """Whether to make a copy; on the way back, whether to put it back."""
        wanted = self._wanted
        if wanted.back:
            return self._put_back(said)
        if said is not None or not wanted.steps:
            return bool(said)
        if not self._asks:
            raise Refused(
                f"{wanted.name} could not go back after this: {wanted.steps[0].what}.",
                hint=f"Say --copy to copy its disk before ({size(wanted.copy_size)}), or --no-copy.",
            )
        return click.confirm(f"Copy the disk before ({size(wanted.copy_size)})?", default=True, err=True)

    def _put_back(self, said: bool | None) -> bool:
        wanted = self._wanted
        if said and not wanted.copy:
            raise Refused(f"there is no copy of the disk of {wanted.name}.", hint=f"wherry upgrade --rollback {wanted.name}")
        if said is not None or not wanted.copy or not self._asks:
            return bool(said)
        return click.confirm(f"Put the disk back as it was ({wanted.copy})?", default=bool(wanted.steps), err=True)

    def restart(self) -> None:
        if not self._wanted.running or self._yes:
            return
        name = self._wanted.name
        if not self._asks:
            raise Refused(
                f"{name} is running and would be restarted: there is nobody to ask.", hint=f"wherry upgrade --yes {name}"
            )
        if not click.confirm(f"Restart {name} now?", default=False, err=True):
            raise Refused(f"{name} stays as it is.")


def _title(manifest: dict[str, Any], sha256: str) -> str:
    engine = f", Docker {manifest['engine']}" if manifest.get("engine") else ""
    return f"the ISO of wherry {manifest.get('version', '?')}{engine} ({sha256[:12]})"


def _lines(wanted: Plan) -> list[str]:
    """What would happen, in words."""
    lines = [f"{wanted.name}: from {wanted.old[:12]} to {wanted.new.sha256[:12]}"]
    rows = [(change.what, change.old or "?", change.new or "?") for change in wanted.changes]
    if rows:
        lines.append(table(("what", "now", "then"), rows))
    else:
        lines.append("The versions in it are the same.")
    if wanted.running:
        lines.append("It has to be restarted: containers stop, and come back by their restart policies.")
    else:
        lines.append("It does not run: the other ISO is used from its next start on.")
    for step in wanted.steps:
        lines.append(
            f"No way back{' without the copy' if wanted.back else ' after that without a copy of the disk'}: {step.what}."
        )
    if wanted.copy and wanted.record is not None:
        lines.append(
            f"A copy of the disk as it was on {wanted.record.when}: {wanted.copy} ({size(wanted.copy_size)})."
            " When it is put back, images, containers, volumes and logins since then are missing;"
            " the disk of today is kept beside it."
        )
    return lines


def _data(wanted: Plan) -> dict[str, Any]:
    return {
        "name": wanted.name,
        "rollback": wanted.back,
        "iso": {"now": wanted.old, "then": wanted.new.sha256},
        "changes": {change.what: [change.old, change.new] for change in wanted.changes},
        "no_way_back": [step.what for step in wanted.steps],
        "running": wanted.running,
        "copy": wanted.copy or None,
    }
