"""What the verbs share: wherry's own options behind the verb, the machine's NAME, sizes, the last start."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, cast

import click

from launcher.cli.app import App, complete_machine
from launcher.config import parse_size
from launcher.errors import Usage

if TYPE_CHECKING:
    from launcher.images import IsoSource

P = ParamSpec("P")


def verb(function: Callable[Concatenate[App, P], int | None]) -> Callable[..., int | None]:
    """Give the function wherry's own options and the App as its first argument; it returns an exit code or None."""

    @click.option("--machine", "machine_", metavar="NAME", hidden=True, shell_complete=complete_machine)
    @click.option("--json", "as_json_", is_flag=True, help="The answer as one JSON object.")
    @click.option("-q", "--quiet", "quiet_", is_flag=True, help="Answers and errors only.")
    @click.option("--debug", "debug_", is_flag=True, help="Say what is done, show tracebacks.")
    @functools.wraps(function)
    def wrapped(machine_: str | None, as_json_: bool, quiet_: bool, debug_: bool, **values: Any) -> int | None:
        app = click.get_current_context().find_object(App)
        assert app is not None
        app.add(machine=machine_, as_json=as_json_, quiet=quiet_, debug=debug_)
        return cast(Callable[..., int | None], function)(app, **values)

    return cast(Callable[..., int | None], wrapped)


class Words(click.Group):
    """A verb with words of its own: `config show`. Alone it tells them; another word is told the nearest."""

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__(*args, **{"invoke_without_command": True, "subcommand_metavar": "WORD [ARGS]...", **values})

    def invoke(self, ctx: click.Context) -> Any:
        if not ctx._protected_args and not ctx.args:
            click.echo(ctx.get_help())
            return 0
        return super().invoke(ctx)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:
            near = difflib.get_close_matches(args[0], self.commands, n=1)
            raise Usage(
                f"{self.name} knows no {args[0]!r}: {', '.join(self.commands)}.",
                hint=f"wherry {self.name} {near[0]}" if near else f"wherry {self.name} --help",
            )
        return super().resolve_command(ctx, args)


machine_name = click.argument("name", required=False, metavar="[NAME]", shell_complete=complete_machine)


class Size(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """8G, 512M; a bare number is refused."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return value if isinstance(value, int) else parse_size(str(value))


class IsoParam(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A file, or an address with its hash; becomes an images.IsoSource."""

    name = "iso"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> IsoSource:
        from launcher.images import parse_source

        source = parse_source(str(value))
        if source.file is not None and not source.file.is_file():
            raise Usage(f"there is no file {value}.", hint="FILE, or URL#sha256=…")
        return source


def machine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What may be decided for a machine."""
    for option in (
        click.option("--no-home", is_flag=True, help="Do not share your home."),
        click.option(
            "--share",
            multiple=True,
            type=click.Path(readable=False),
            metavar="PATH[:ro]",
            help="Share this folder too; may be given again.",
        ),
        click.option("--publish-address", metavar="A", help="Where ports that name no address are published: 127.0.0.1,::1."),
        click.option("--iso", type=IsoParam(), metavar="FILE|URL#sha256=…", help="Use this ISO; an address needs its hash."),
        click.option("--arch", type=click.Choice(["amd64", "arm64"]), help="Its architecture; by default this computer's."),
        click.option("--disk", type=Size(), metavar="SIZE", help="What its disk may grow to, e.g. 100G."),
        click.option("--memory", type=Size(), metavar="SIZE", help="Memory, e.g. 8G."),
        click.option("--cpus", type=click.IntRange(1, 255), metavar="N", help="Number of CPUs."),
    ):
        function = option(function)
    return function


def last_start(name: str) -> float | None:
    """How long the machine's last start took, in seconds; None when it is not known."""
    from launcher.cli.proxy import last_start as read

    return read(name)
