"""wherry's own verbs as a click group that imports a verb only when it is called, and the one place that shows errors."""

from __future__ import annotations

import difflib
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from launcher import __version__
from launcher.cli import registry
from launcher.cli.words import Settings
from launcher.console import Console
from launcher.errors import Interrupted, Usage, WherryError, of_system

_EPILOG = """Exit codes: 0 done, 1 failed, 2 usage, 3 not running or no such machine, 4 something is missing on this computer,
5 no progress, 6 refused to protect data, 7 the ISO, 130 interrupted. run, docker, compose and ssh give the command's own code;
125 (ssh: 255) when wherry itself failed."""


class App:
    """What a verb needs: the settings from both sides of it, and the console."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def console(self) -> Console:
        return Console(json=self.settings.json, quiet=self.settings.quiet, debug=self.settings.debug)

    def add(self, *, machine: str | None, as_json: bool, quiet: bool, debug: bool) -> None:
        """Options given behind the verb. Raises Usage when two machines are named."""
        now = self.settings
        if machine is not None and now.machine is not None and machine != now.machine:
            raise Usage(f"two machines are named: {now.machine} and {machine}.")
        self.settings = now._replace(
            machine=now.machine if machine is None else machine,
            json=as_json or now.json,
            quiet=quiet or now.quiet,
            debug=debug or now.debug,
        )
        if self.settings.debug:
            logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(relativeCreated)6d ms %(name)s: %(message)s")

    def name(self, argument: str | None = None) -> str:
        """The machine that is meant. Raises Usage when the argument and --machine disagree."""
        chosen = self.settings.machine
        if argument is not None and chosen is not None and argument != chosen:
            raise Usage(f"two machines are named: {chosen} and {argument}.")
        # An empty name is a mistake (a script's unset variable), never the default machine: `delete --yes "$NAME"`.
        given = chosen if argument is None else argument
        return (os.environ.get("WHERRY_MACHINE") or "default") if given is None else given


class Verbs(click.Group):
    """Looks verbs up in the registry."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(registry.VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = registry.VERBS.get(cmd_name)
        if entry is None:
            return None
        module = import_module(f"launcher.cli.verbs.{entry[0]}")
        # list and help are Python's words too: their functions end in "_".
        command: click.Command = getattr(module, f"{cmd_name}_", None) or getattr(module, cmd_name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        word, rest = args[0], args[1:]
        if word in registry.ALIASES:
            verb, *options = registry.ALIASES[word]
            args = [verb, *options, *rest]
        elif word not in registry.VERBS:
            raise unknown(word, rest)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, text) in registry.VERBS.items()])
        words: dict[str, list[str]] = {}
        for alias, target in registry.ALIASES.items():
            words.setdefault(" ".join(target), []).append(alias)
        with formatter.section("Other words for them"):
            formatter.write_dl([(", ".join(aliases), target) for target, aliases in words.items()])


def unknown(word: str, rest: Sequence[str]) -> Usage:
    """The error for a word that is no verb, with what was probably meant."""
    if word in registry.COMPOSE:
        return Usage(f"{word!r} is called compose here.", hint=shlex.join(["wherry", "compose", *rest]))
    if word in registry.DOCKER:
        return Usage(f"{word!r} is docker's word.", hint=shlex.join(["wherry", "docker", word, *rest]))
    near = [f"wherry {verb} ?" for verb in _near(word, [*registry.VERBS, *registry.ALIASES])]
    near += [f"wherry docker {verb} ?" for verb in difflib.get_close_matches(word, registry.DOCKER, n=1)]
    return Usage(f"there is no verb {word!r}.", hint=near[0] if near else "wherry --help")


def complete_machine(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from launcher import store

    return [found.name for found in store.machines() if found.name.startswith(incomplete)]


def _near(word: str, words: Sequence[str]) -> list[str]:
    """What was probably meant: the word that this one begins, else the one that looks like it. `stat` is status, not start."""
    begun = [known for known in words if len(word) > 1 and known.startswith(word)]
    return begun[:1] or difflib.get_close_matches(word, words, n=1)


@click.group(
    cls=Verbs, invoke_without_command=True, epilog=_EPILOG, subcommand_metavar="VERB [WORDS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)  # fmt: skip
@click.version_option(__version__, message="wherry %(version)s")
@click.option(
    "--machine", metavar="NAME", shell_complete=complete_machine,
    help="The machine that is meant; else WHERRY_MACHINE, else default.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The answer as one JSON object with ok, data and error.")
@click.option("-q", "--quiet", is_flag=True, help="Answers and errors only.")
@click.option("--debug", is_flag=True, help="Say what is done, and show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, machine: str | None, as_json: bool, quiet: bool, debug: bool) -> None:
    """Docker on this computer: a small virtual machine with the Docker Engine in it.

    Begin with:  wherry up   and   wherry run wherry/hello
    """
    ctx.obj = App(Settings())
    ctx.obj.add(machine=machine, as_json=as_json, quiet=quiet, debug=debug)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(words: list[str]) -> int:
    """Run one of wherry's own verbs; its exit code."""
    # Errors of the command line itself come before the options are read: their form is looked up in the words.
    console = Console(json="--json" in words or words[:1] == ["info"], debug="--debug" in words)
    if "_WHERRY_COMPLETE" in os.environ:
        from launcher.cli.verbs import completion  # noqa: F401  makes PowerShell known to click

    try:
        done: Any = cli.main(args=words, prog_name="wherry", standalone_mode=False)
        return done if isinstance(done, int) else 0
    except WherryError as error:
        console.error(error)
        # 255 is ssh's; for wherry's own verbs a lost connection is a failure like any other.
        return error.exit_code if error.exit_code != 255 else 1
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.UsageError as error:
        console.error(_usage(error))
        return Usage.exit_code
    except click.ClickException as error:
        console.error(WherryError(error.format_message()))
        return 1
    except (click.Abort, KeyboardInterrupt):
        console.error(Interrupted("interrupted."))
        return Interrupted.exit_code
    except BrokenPipeError:
        # `wherry list | head -1`: nobody reads on. Python would complain again when it flushes stdout at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        console.error(_bug(error))
        return 1


def _usage(error: click.UsageError) -> Usage:
    path = error.ctx.command_path if error.ctx else "wherry"
    message = error.format_message()
    return Usage(message[:1].lower() + message[1:] if message[1:2].islower() else message, hint=f"{path} --help")


def _bug(error: Exception) -> WherryError:
    if isinstance(error, OSError):
        return of_system(error)
    return WherryError(f"{type(error).__name__}: {error}", hint="This should not happen; --debug shows where it did.")
