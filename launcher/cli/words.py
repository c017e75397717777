"""The grammar of words: wherry's own options before the verb, and a reader of docker's options that knows which take values.

Named tuples, not dataclasses: every `wherry docker` pays for what is made here, and a dataclass costs a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

PROXIED: Final = ("run", "docker", "compose", "ssh")


class Settings(NamedTuple):
    """wherry's own options, wherever they stood."""

    machine: str | None = None
    json: bool = False
    quiet: bool = False
    debug: bool = False


class Leading(NamedTuple):
    """A command line cut behind its verb. Without a verb, or with an option that is none of ours, `verb` is empty."""

    settings: Settings
    verb: str
    rest: list[str]


def leading(words: Sequence[str]) -> Leading:
    """Read wherry's options before the verb; everything behind the verb stays as it is."""
    machine: str | None = None
    flags = {"--json": False, "--quiet": False, "--debug": False}
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--machine" and position + 1 < len(words):
            position += 1
            machine = words[position]
        elif word.startswith("--machine="):
            machine = word.partition("=")[2]
        elif word == "-q" or word in flags:
            flags["--quiet" if word == "-q" else word] = True
        elif word.startswith("-"):
            break
        else:
            settings = Settings(machine, flags["--json"], flags["--quiet"], flags["--debug"])
            return Leading(settings, word, list(words[position + 1 :]))
        position += 1
    return Leading(Settings(machine, flags["--json"], flags["--quiet"], flags["--debug"]), "", list(words[position:]))


class Options(NamedTuple):
    """Which options of a command take a value; every other one is a switch."""

    valued: frozenset[str]

    def takes_value(self, name: str) -> bool:
        return name in self.valued


def options(*names: str) -> Options:
    """From words like "-p --publish --name", as docker's own help lists them."""
    return Options(frozenset(name for line in names for name in line.split()))


class Option(NamedTuple):
    """One option as written: its name ("--name", "-p"), its value if it has one, and the word that holds the value."""

    name: str
    value: str | None
    word: int  # index of the word with the value, or of the option itself
    prefix: str  # what stands before the value in that word: "--file=", "-f", or nothing


class Scan:
    """Options up to the first argument (or, `mixed`, all of them), and the indices of the arguments."""

    def __init__(self) -> None:
        self.found: list[Option] = []
        self.arguments: list[int] = []

    def has(self, *names: str) -> bool:
        return any(option.name in names for option in self.found)

    def value(self, *names: str) -> str | None:
        """The last value given, as docker reads it."""
        values = self.all(*names)
        return values[-1].value if values else None

    def all(self, *names: str) -> list[Option]:
        return [option for option in self.found if option.name in names]

    def is_on(self, *names: str) -> bool:
        """Whether a switch was given and not switched off by =false."""
        last = self.all(*names)[-1:]
        return bool(last) and (last[0].value or "true").lower() not in ("false", "0", "f")


def scan(words: Sequence[str], known: Options, *, start: int = 0, mixed: bool = False) -> Scan:
    """Read options as pflag does: --name value, --name=value, -p value, -pvalue, -itp value; `--` ends them.

    Without `mixed` the first argument ends the options (docker run IMAGE …); with it they may follow it (docker build).
    """
    result = Scan()
    position = start
    while position < len(words):
        word = words[position]
        if word == "--":
            result.arguments.extend(range(position + 1, len(words)))
            break
        if word == "-" or not word.startswith("-"):
            result.arguments.append(position)
            if not mixed:
                break
            position += 1
        elif word.startswith("--"):
            position = _long(words, position, known, result)
        else:
            position = _short(words, position, known, result)
    return result


def _long(words: Sequence[str], position: int, known: Options, result: Scan) -> int:
    name, equals, value = words[position].partition("=")
    if equals:
        result.found.append(Option(name, value, position, f"{name}="))
    elif known.takes_value(name) and position + 1 < len(words):
        result.found.append(Option(name, words[position + 1], position + 1, ""))
        return position + 2
    else:
        result.found.append(Option(name, None, position, ""))
    return position + 1


def _short(words: Sequence[str], position: int, known: Options, result: Scan) -> int:
    word = words[position]
    for at in range(1, len(word)):
        name = f"-{word[at]}"
        rest = word[at + 1 :]
        if rest.startswith("="):
            result.found.append(Option(name, rest[1:], position, word[: at + 2]))
            return position + 1
        if not known.takes_value(name):
            result.found.append(Option(name, None, position, ""))
            continue
        if rest:
            result.found.append(Option(name, rest, position, word[: at + 1]))
            return position + 1
        if position + 1 < len(words):
            result.found.append(Option(name, words[position + 1], position + 1, ""))
            return position + 2
        result.found.append(Option(name, None, position, ""))
    return position + 1
