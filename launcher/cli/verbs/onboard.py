"""up -f: a machine as a project's wherry.toml wants it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from launcher.cli.app import App
from launcher.cli.options import last_start
from launcher.cli.verbs.config import said
from launcher.cli.verbs.start import interrupted, status_of, tell
from launcher.console import is_terminal
from launcher.errors import Interrupted, Refused, Usage, WherryError

if TYPE_CHECKING:
    from launcher.machine import UpOptions, UpResult
    from launcher.machine.configure import Plan
    from launcher.machine.onboarding import Wish


def up(app: App, name: str, file: str, options: UpOptions, *, cold: bool, yes: bool) -> None:
    """Settings first, then the images that are missing, then the compose file. Whatever ends it half-way, the same call goes on
    from there."""
    from launcher.machine import onboarding

    _check_options(options, cold)
    wish = onboarding.read(file)
    try:
        done = _machine(app, name, file, wish, options, yes)
    except KeyboardInterrupt:
        if status_of(name) == "starting":
            raise interrupted(name) from None
        raise Interrupted("interrupted.", hint=_again(name, file)) from None
    answer = tell(app.console, done.result, was_running=done.ran)
    pulled = onboarding.missing_images(name, wish)
    for image in pulled:
        app.console.story(f"{image} is not there: pulling it")
        _docker(app, name, file, ["docker", "pull", image])
    if wish.compose is not None:
        _docker(app, name, file, ["compose", "--file", str(wish.compose), "up", "--detach"], wish.compose.parent)
    changed = [{"key": change.key, "before": change.before, "after": change.after} for change in done.plan.changes]
    more = {"changed": changed, "created": done.created, "restarted": done.restarted, "pulled": pulled}
    app.console.answer(answer | more | {"compose": None if wish.compose is None else str(wish.compose)}, "")
    app.console.story(f"{name} is as {file} wants it.")


def _check_options(options: UpOptions, cold: bool) -> None:
    given = {
        "--cpus": options.cpus, "--memory": options.memory, "--publish-address": options.publish_address,
        "--share": options.share, "--no-home": options.no_home, "--cold": cold,
    }  # fmt: skip
    for option, value in given.items():
        if value:
            raise Usage(f"{option} and -f are two answers to one question.", hint="wherry up -f FILE, or the option alone")


class _Done(NamedTuple):
    """What became of the machine itself."""

    plan: Plan  # what was changed
    result: UpResult
    created: bool
    restarted: bool
    ran: bool  # before we came, and goes on


def _machine(app: App, name: str, file: str, wish: Wish, options: UpOptions, yes: bool) -> _Done:
    from launcher import machine
    from launcher.machine import onboarding

    with app.console.telling(lambda: last_start(name)) as reporter:
        created = onboarding.have(name, wish, options, reporter)
    looked = onboarding.difference(name, wish)
    _tell_plan(app, looked)
    if looked.restart:
        if not yes:
            _ask(app, name, file)
        # Stopped before it is changed: a call that is cut off in between finds the same difference again.
        with app.console.telling() as reporter:
            machine.stop(name, False, reporter)
    plan = onboarding.apply(name, wish)
    again = plan.restart  # somebody has started it since then, with the settings from before
    ran = plan.running and not again
    with app.console.telling(lambda: last_start(name), starting=not ran) as reporter:
        result = machine.restart(name, False, reporter) if again else machine.up(name, machine.UpOptions(), reporter)
    return _Done(plan, result, created, looked.restart or again, ran)


def _tell_plan(app: App, plan: Plan) -> None:
    for note in plan.notes:
        app.console.warning(note)
    for change in plan.changes:
        app.console.story(f"{change.key}: {said(change.before)} -> {said(change.after)}")


def _ask(app: App, name: str, file: str) -> None:
    what = f"This takes a restart of {name}, which runs"
    if app.settings.json or not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise Refused(f"{what}, and there is nobody to ask; nothing is changed.", hint=f"{_again(name, file)} --yes")
    if not click.confirm(f"{what}. Restart it now?", default=False, err=True):
        raise Refused(f"{name} is as it was.", hint=_again(name, file))


def _docker(app: App, name: str, file: str, words: list[str], folder: Path | None = None) -> None:
    """A proxied command in a process of its own: the docker client of this computer takes the place of the process it is in.
    What it says is the story, not the answer."""
    from launcher import proc
    from launcher.machine import program

    silent = app.settings.json or app.settings.quiet
    code = proc.interactive(
        [*program.command(), "--machine", name, *(["-q"] if silent else []), *words],
        cwd=folder, stdout=proc.DEVNULL if silent else sys.stderr.fileno(),
    )  # fmt: skip
    if code == Interrupted.exit_code:
        raise Interrupted("interrupted.", hint=_again(name, file))
    if code != 0:
        raise WherryError(
            f"wherry {' '.join(words)} ended with exit code {code}.", hint=f"Mend it, then again: {_again(name, file)}"
        )


def _again(name: str, file: str) -> str:
    import shlex

    return shlex.join(["wherry", "up", *([] if name == "default" else [name]), "-f", file])
