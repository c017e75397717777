"""env."""

from __future__ import annotations

import os
from typing import Final

import click

from launcher.cli import shells
from launcher.cli.app import App
from launcher.cli.options import verb
from launcher.errors import NotRunning, Usage

# Left over from another machine, these would lead elsewhere, have the client speak TLS to the socket, or an old version.
_OF_OTHERS: Final = ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_TLS", "DOCKER_API_VERSION")


@click.command()
@click.argument("words", nargs=-1, metavar="[SHELL] [NAME]")
@click.option("--unset", is_flag=True, help="Code that removes the variable.")
@verb
def env(app: App, words: tuple[str, ...], unset: bool) -> None:
    """Shell code that leads docker in this terminal to the machine: eval "$(wherry env)"

    SHELL is bash, zsh, fish, powershell or cmd; else it is the one that wherry was started from. When the machine does not run
    the answer is `false`, so that eval fails too, and the exit code 3.
    """
    from launcher.machine import context

    shell, name = _read(words)
    chosen = app.name(name)
    values: dict[str, str | None] = {"DOCKER_HOST": None}
    if not unset:
        try:
            values["DOCKER_HOST"] = context.docker_host(chosen)
        except NotRunning:
            app.console.answer_text("false")
            raise
        values |= {variable: None for variable in _OF_OTHERS if variable in os.environ}
    line = " ".join(["wherry env", *words, *(["--unset"] if unset else [])])
    text = shells.code(shell or shells.guess(), values, line)
    app.console.answer(values, text)


def _read(words: tuple[str, ...]) -> tuple[str | None, str | None]:
    """Shell and machine, in any order."""
    chosen = [word for word in words if word in shells.SHELLS]
    names = [word for word in words if word not in shells.SHELLS]
    if len(chosen) > 1 or len(names) > 1:
        raise Usage(f"one shell ({', '.join(shells.SHELLS)}) and one machine.", hint="wherry env --help")
    return (chosen[0] if chosen else None), (names[0] if names else None)
