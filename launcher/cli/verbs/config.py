"""config: show, get, set, unset, edit, path."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.app import App
from launcher.cli.options import Words, last_start, machine_name, verb
from launcher.config_keys import ENGINE_KEYS, KEYS
from launcher.console import Console, is_terminal, table
from launcher.errors import Usage, WherryError

if TYPE_CHECKING:
    from launcher.machine.configure import Draft, Plan
    from launcher.machine.settings import Setting


def _complete_key(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    names = [key.name for key in KEYS if key.kind != "table"] + [f"engine.{key}" for key in ENGINE_KEYS]
    return [name for name in names if name.startswith(incomplete)]


_restart = click.option("--restart", is_flag=True, help="Restart the machine if it runs and the change takes one.")


class _Config(Words):
    """Tells the keys after the words."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's signature
        with formatter.section("Keys"):
            formatter.write_dl([(key.name, f"{key.what} Default: {key.default}.") for key in KEYS])


@click.group(cls=_Config)
def config() -> None:
    """The machine's settings, kept in its machine.toml. Which machine: --machine NAME, else the default one."""


@config.command()
@machine_name
@verb
def show(app: App, name: str | None) -> None:
    """Every setting with its value, and whether that is the default."""
    from launcher.machine import settings

    found = settings.show(app.name(name))
    origin = {(True, True): "default", (False, True): "set", (True, False): "fixed", (False, False): "fixed"}
    rows = [(item.key, _cell(item), origin[item.default, item.settable], _when(item)) for item in found]
    app.console.answer([asdict(item) for item in found], table(("key", "value", "from", "a change takes"), rows))


def _cell(item: Setting) -> str:
    return f"{item.value[:12]}..." if item.key == "iso" else _text(item.value)


def _when(item: Setting) -> str:
    if not item.settable:
        return "-"
    if item.restart:
        return "a restart"
    return "effect in a later release" if item.later else "effect at once"


@config.command()
@click.argument("key", shell_complete=_complete_key)
@verb
def get(app: App, key: str) -> None:
    """The value of one key, as the machine would use it."""
    from launcher.machine import settings

    value = settings.get(app.name(), key)
    app.console.answer({"key": key, "value": value}, _text(value))


@config.command("set")
@click.argument("words", nargs=-1, required=True, metavar="KEY VALUE | KEY=VALUE...", shell_complete=_complete_key)
@_restart
@verb
def set_(app: App, words: Sequence[str], restart: bool) -> None:
    """Set one key, or several as KEY=VALUE. Says first whether it takes a restart.

    Values of engine keys are TOML: true, 3, '["a", "b"]'; what is none is text: config set engine.log-opts.max-size 5m
    """
    _change(app, dict(_pairs(words)), restart)


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    if len(words) == 2 and "=" not in words[0]:
        return [(words[0], words[1])]
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise Usage(f"{wrong[0]!r} has no value.", hint="wherry config set KEY VALUE, or: wherry config set KEY=VALUE…")
    return [(key, value) for key, _, value in (word.partition("=") for word in words)]


@config.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...", shell_complete=_complete_key)
@_restart
@verb
def unset(app: App, keys: Sequence[str], restart: bool) -> None:
    """Go back to the default of a key."""
    _change(app, dict.fromkeys(keys), restart)


def _change(app: App, wanted: dict[str, str | None], restart: bool) -> None:
    from launcher.machine import configure

    plan = configure.change(app.name(), wanted, lambda plan: _tell(app.console, plan, restart))
    _done(app, plan, restart)


@config.command()
@machine_name
@_restart
@verb
def edit(app: App, name: str | None, restart: bool) -> None:
    """Open machine.toml in $VISUAL, $EDITOR or the system's editor; what cannot be is not taken over."""
    from launcher.machine import configure

    with configure.draft(app.name(name)) as draft:
        plan = _edited(app, draft)
        if plan is None:
            app.console.answer({"changed": []}, "")
            app.console.story("Nothing is changed.")
            return
        _tell(app.console, plan, restart)
        draft.save(plan)
    _done(app, plan, restart)


def _edited(app: App, draft: Draft) -> Plan | None:
    """What the user made of it; None when that is nothing. Raises what is wrong with it when there is nobody to ask."""
    from launcher import host, proc

    chosen = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    # On Windows a backslash is part of a path, not an escape.
    words = shlex.split(chosen, posix=os.sep == "/") if chosen else host.current().editor()
    while True:
        code = proc.interactive([*words, draft.file])
        if code != 0:
            raise WherryError(f"{words[0]} ended with exit code {code}; machine.toml is as it was.")
        if draft.unchanged:
            return None
        try:
            return draft.check()
        except WherryError as error:
            if app.settings.json or not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
                raise
            app.console.error(error)
            if not click.confirm("Edit again?", default=True, err=True):
                return None


@config.command()
@machine_name
@verb
def path(app: App, name: str | None) -> None:
    """Where machine.toml is."""
    from launcher.machine import configure

    file = str(configure.path(app.name(name)))
    app.console.answer({"path": file}, file)


def _tell(console: Console, plan: Plan, restart: bool) -> None:
    """What the change takes, before it is made."""
    name = plan.directory.name
    for note in plan.notes:
        console.warning(note)
    if not plan.changes:
        console.story("Nothing is changed: it is so already.")
    for change in plan.changes:
        if change.later:
            console.story(f"{change.key} is kept, and takes effect in the machine with a later release of wherry.")
    if plan.restart:
        how = "is done now" if restart else f"wherry restart{'' if name == 'default' else ' ' + name}, or --restart"
        console.story(f"This takes a restart of {name}, which runs: {how}.")
    elif any(change.restart for change in plan.changes):
        console.story(f"This holds from {name}'s next start on.")


def _done(app: App, plan: Plan, restart: bool) -> None:
    changed = [{"key": change.key, "before": change.before, "after": change.after} for change in plan.changes]
    again = plan.restart and restart
    if again:
        from launcher import machine
        from launcher.cli.verbs.start import show as show_start

        name = plan.directory.name
        with app.console.telling(lambda: last_start(name)) as reporter:
            result = machine.restart(name, False, reporter)
        if not app.settings.json:
            show_start(app, result)
    answer = {"changed": changed, "restart_needed": plan.restart and not again, "restarted": again}
    app.console.answer(answer, "")
    for change in plan.changes:
        if not again:
            app.console.story(f"{change.key}: {said(change.before)} -> {said(change.after)}")


def said(value: Any) -> str:
    """A value of machine.toml as one says it."""
    return "default" if value is None else _text(value)


def _text(value: Any) -> str:
    """A value as machine.toml has it, but text without quotes."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    import tomlkit

    if isinstance(value, dict):
        return tomlkit.dumps(value).strip()
    return str(tomlkit.item(value).as_string())
