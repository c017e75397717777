"""Which docker commands read standard input, and which insist on a terminal.

A client that runs here reads its input only when the command does; what is piped to a script must not be swallowed by
`wherry docker ps` in the middle of it, as ssh does without -n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from launcher.cli.dockerflags import COMPOSE, DOCKER, RUN
from launcher.cli.words import Options, options, scan

_SILENT: Final = frozenset(
    {
        "commit", "create", "diff", "events", "export", "history", "images", "info", "inspect", "kill", "logout", "logs", "ls",
        "pause", "port", "ps", "pull", "push", "rename", "restart", "rm", "rmi", "save", "search", "stats", "stop", "tag",
        "top", "unpause", "update", "version", "wait",
    }
)  # fmt: skip
# `compose rm` asks, and docker rm does not.
_COMPOSE_SILENT: Final = frozenset(_SILENT - {"rm", "create"} | {"config", "down", "start", "volumes"})
_MANAGEMENT: Final = frozenset({"container", "image", "network", "volume", "node", "service", "context", "plugin"})
_EXEC: Final = options("--detach-keys -e --env --env-file -u --user -w --workdir --index")
# Commands that read input, or take a terminal, only when they are told to.
_INTERACTIVE: Final[dict[str, Options]] = {
    "run": RUN,
    "exec": _EXEC,
    "start": options("--detach-keys --checkpoint --checkpoint-dir"),
}


def _command(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The command behind `docker` and its words; "compose X" for one of compose's."""
    at = scan(argv, DOCKER, start=1).arguments
    if not at:
        return "", []
    word, rest = argv[at[0]], list(argv[at[0] + 1 :])
    if word == "compose":
        inner = scan(rest, COMPOSE).arguments
        return (f"compose {rest[inner[0]]}", rest[inner[0] + 1 :]) if inner else ("compose", rest)
    if word in _MANAGEMENT and rest and not rest[0].startswith("-"):
        return rest[0], rest[1:]
    return word, rest


def reads_input(argv: Sequence[str]) -> bool:
    """Whether the command may read standard input; in doubt it may."""
    command, words = _command(argv)
    if command.startswith("compose "):
        return command.removeprefix("compose ") not in _COMPOSE_SILENT
    if command in _INTERACTIVE:
        return scan(words, _INTERACTIVE[command]).is_on("-i", "--interactive")
    return command not in _SILENT


def wants_terminal(argv: Sequence[str]) -> bool:
    """Whether the command insists on a terminal, even when that puts its stderr into its stdout."""
    command, words = _command(argv)
    if command in ("run", "exec"):
        return scan(words, _INTERACTIVE[command]).is_on("-t", "--tty")
    return command in ("attach", "login", "compose exec", "compose run", "compose attach")
