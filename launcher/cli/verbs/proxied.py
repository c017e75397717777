"""run, docker, compose and ssh for --help and completion; launcher.cli.proxy carries them out, without click."""

from __future__ import annotations

import click

from launcher.cli.words import Leading, Settings

_RAW = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def _command(name: str, text: str) -> click.Command:
    @click.command(name, help=text, context_settings=_RAW, add_help_option=False)
    @click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="...")
    @click.pass_obj
    def command(app: object, words: tuple[str, ...]) -> int:
        from launcher.cli import proxy

        settings = getattr(app, "settings", Settings())
        return proxy.main(Leading(settings, name, list(words)))

    return command


run = _command(
    "run",
    """docker run IMAGE in the machine, which is started if needed. Three options are added where they are wanted:

    --init, unless --init=... is given; -it, when standard input and output are a terminal; --rm, in the foreground
    without --name, --restart, --cidfile or an own --rm. The image wherry/hello is inside the machine.

    All words are docker run's: wherry run --help""",
)
docker = _command(
    "docker",
    """The docker client in the machine, which is started if needed. All words are docker's.

    Folders that are shared are there at the same path; what is not, docker build copies into the machine.""",
)
compose = _command(
    "compose",
    """docker compose in the machine, which is started if needed. All words are compose's.

    A project's folder that is not shared is copied into the machine and stays there while the project has containers.""",
)
ssh = _command(
    "ssh",
    """A shell in the machine, or COMMAND in it with its exit code.

    One word is a line for the machine's shell (wherry ssh 'ls | wc -l'), several words are taken as they are.""",
)
