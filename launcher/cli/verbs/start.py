"""up, init, restart."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.app import App
from launcher.cli.options import last_start, machine_name, machine_options, verb
from launcher.cli.verbs.share import share_lines
from launcher.console import Console, is_terminal, seconds
from launcher.errors import Interrupted, NoSuchMachine, Refused, WherryError

if TYPE_CHECKING:
    from launcher.images import IsoSource
    from launcher.machine import UpResult
    from launcher.machine.context import Offer


@click.command()
@machine_name
@machine_options
@click.option(
    "-f",
    "--file",
    metavar="FILE|URL#sha256=…",
    type=click.Path(readable=False),
    help="Have it as this wherry.toml says: settings, shares, images, a compose file. Asks before a restart.",
)
@click.option("--cold", is_flag=True, help="Of a suspended machine: give its memory up, start it anew. Asks first.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@verb
def up(
    app: App, name: str | None, cpus: int | None, memory: int | None, disk: int | None, arch: str | None,
    iso: IsoSource | None, publish_address: str | None, share: tuple[str, ...], no_home: bool, file: str | None, cold: bool,
    yes: bool,
) -> None:  # fmt: skip
    """Start the machine, make it if there is none, resume it if it is suspended, and wait until its engine answers.

    Running it again changes nothing; options other than --arch, --disk and --iso hold from the next start on, --share and
    --no-home at once.
    """
    from launcher import machine

    chosen, console = app.name(name), app.console
    options = machine.UpOptions(cpus, memory, disk, arch, iso, publish_address, share, no_home)
    if file is not None:
        from launcher.cli.verbs import onboard

        onboard.up(app, chosen, file, options, cold=cold, yes=yes)
        return
    before = status_of(chosen)
    if cold and _is_suspended(chosen) and not yes:
        _ask_cold(app, chosen)
    try:
        with console.telling(lambda: last_start(chosen), starting=before in ("stopped", "suspended", "starting")) as reporter:
            result = machine.up(chosen, options, reporter, cold=cold)
    except KeyboardInterrupt:
        if status_of(chosen) == "none":
            raise Interrupted("interrupted before there was a machine.", hint=f"wherry up{_argument(chosen)}") from None
        raise interrupted(chosen) from None
    show(app, result, was_running=before == "running")


@click.command()
@machine_name
@machine_options
@verb
def init(
    app: App, name: str | None, cpus: int | None, memory: int | None, disk: int | None, arch: str | None,
    iso: IsoSource | None, publish_address: str | None, share: tuple[str, ...], no_home: bool,
) -> None:  # fmt: skip
    """Make a machine without starting it."""
    from launcher import machine

    chosen = app.name(name)
    with app.console.telling() as reporter:
        machine.init(chosen, machine.UpOptions(cpus, memory, disk, arch, iso, publish_address, share, no_home), reporter)
    app.console.answer({"name": chosen}, "")
    app.console.story(f"{chosen} is made.   wherry up{_argument(chosen)}")


@click.command()
@machine_name
@click.option("--force", is_flag=True, help="Do not wait for containers and file systems: like pulling the plug.")
@verb
def restart(app: App, name: str | None, force: bool) -> None:
    """Stop the machine and start it again."""
    from launcher import machine

    chosen = app.name(name)
    try:
        with app.console.telling(lambda: last_start(chosen)) as reporter:
            result = machine.restart(chosen, force, reporter)
    except KeyboardInterrupt:
        raise interrupted(chosen) from None
    show(app, result)


def show(app: App, result: UpResult, *, was_running: bool = False) -> None:
    """How a start went, where docker leads, and what to try next. Raises WherryError when the machine is held by now."""
    app.console.answer(tell(app.console, result, was_running=was_running), "")


def tell(console: Console, result: UpResult, *, was_running: bool) -> dict[str, Any]:
    """As `show`, for who has more to answer than this, which is returned."""
    from launcher.machine.context import offer

    _check_held(result.name)
    offered = offer(result.name)
    _story(console, result, offered, was_running=was_running)
    return asdict(result) | {"context": asdict(offered)}


def _story(console: Console, result: UpResult, offered: Offer, *, was_running: bool) -> None:
    facts = f"Docker {result.engine} · {result.accel if result.accel != 'tcg' else 'no hardware acceleration'}"
    if was_running:
        console.story(f"{result.name} is running · {facts}")
        for note in result.notes if result.already else []:  # else they were told as they came
            console.story(f"  {note}")
        _tell_shares(console, result.name)
        _tell_warnings(console, result.name)
        _tell_context(console, offered)
        return
    _tell_shares(console, result.name)
    console.story(f"Ready in {seconds(result.seconds)} · {facts}")
    if result.emulation_hint:
        console.story("Running WITHOUT hardware acceleration: containers are 5-8 times slower.")
        console.story(f"Why   {result.emulation_hint}")
    _tell_warnings(console, result.name)
    _tell_context(console, offered)
    prefix = "" if result.name == "default" else f"--machine {result.name} "
    console.story(f"Try   wherry {prefix}run wherry/hello")


def _check_held(name: str) -> None:
    """A machine whose disk cannot be written answers nobody, whatever its start came to."""
    from launcher import machine

    found = machine.status(name)
    if found["status"] == "paused":
        raise WherryError(f"{name} is {found['problem']}", hint=found["next"])


def _tell_shares(console: Console, name: str) -> None:
    for line in share_lines(name):
        console.story(f"  {line}")


def _tell_warnings(console: Console, name: str) -> None:
    from launcher import machine

    for warning in machine.status(name).get("warnings") or []:
        console.story(f"wherry: {warning}")


def _tell_context(console: Console, offered: Offer) -> None:
    if offered.before is not None:
        console.story(f"  docker context {offered.name} is now current (was: {offered.before})   undo: wherry context remove")
    elif not offered.current and not offered.advice:
        console.story(f"  docker reaches it by:  docker context use {offered.name}")
    for line in offered.advice:
        console.story(f"  {line}")


def status_of(name: str) -> str:
    from launcher import machine

    try:
        return str(machine.status(name)["status"])
    except NoSuchMachine:
        return "none"


def _is_suspended(name: str) -> bool:
    """Whatever else may be wrong with it."""
    from launcher import saved, store

    return saved.is_suspended(store.machine(name))


def _ask_cold(app: App, name: str) -> None:
    what = f"What runs in {name} is lost with its saved memory; its disk is then as after a power cut."
    if app.settings.json or not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise Refused(
            f"{name} is suspended, and there is nobody to ask whether to give its memory up. {what}",
            hint=f"wherry up --cold --yes{_argument(name)}",
        )
    click.echo(what, err=True)
    if not click.confirm(f"Start {name} anew?", default=False, err=True):
        raise Refused(f"{name} stays suspended.", hint=f"wherry up{_argument(name)} resumes it")


def interrupted(name: str) -> Interrupted:
    argument = _argument(name)
    return Interrupted(
        f"{name} is still starting in the background.", hint=f"wherry up{argument} watches, wherry stop{argument} ends it"
    )


def _argument(name: str) -> str:
    return "" if name == "default" else f" {name}"
