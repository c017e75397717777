"""`docker build` with a context on this computer: the context is copied into the machine, the build runs there."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from launcher.cli import context, hostfiles, pack
from launcher.cli.dockerflags import BUILD, BUILDS, BUILDX
from launcher.cli.ignore import Ignore, parse
from launcher.cli.transfer import entries
from launcher.cli.words import Option, Scan, scan
from launcher.console import Console
from launcher.errors import Usage

# What docker takes for a context that it fetches itself.
_REMOTE: Final = re.compile(r"(https?|git|ssh|git\+\w+)://|git@|github\.com/")
_FETCHED: Final = re.compile(r"(https?|git|ssh|docker-image|target)(://|:)|git@")
# Options that would write or read a place on this computer: nothing of the kind works before there are shares.
_WRITES: Final = ("--iidfile", "--metadata-file")


class Client(Protocol):
    """The machine, as this module needs it."""

    console: Console

    def control(self) -> Path: ...
    def client(self, argv: list[str], *, cwd: str | None = None) -> int: ...


@dataclass
class Plan:
    """A build to be run in the machine: docker's words with paths that hold there, and what .dockerignore cannot keep back."""

    root: Path
    words: list[str]
    always: set[str] = field(default_factory=set)
    aside: dict[str, Path] = field(default_factory=dict)  # what is outside of the context: its name in a copy of its own
    aside_id: str = field(default_factory=hostfiles.new_id)
    own_ignore: Path | None = None  # of a Dockerfile outside of the context

    def place(self, value: str, here: Path, what: str) -> str:
        """Where the file or folder is in the machine. Raises Usage when it is not there."""
        if not os.path.lexists(here / value):
            raise Usage(f"{what} {value} is not here.")
        try:
            return context.inside(self.root, value, here, what)
        except Usage:
            path = (here / value).resolve()
            name = f"{len(self.aside)}-{path.name}"
            self.aside[name] = path
            return f"{context.WORK}/{self.aside_id}/{name}"

    def is_aside(self, place: str) -> bool:
        return place.startswith(f"{context.WORK}/")

    def aside_entries(self) -> list[pack.Entry]:
        return [entry for name, path in self.aside.items() for entry in entries(path, path.is_dir(), name)]


def run(machine: Client, words: list[str], verb: int) -> int:
    """Run `docker WORDS`, whose command begins at `verb`; what is not a build from a folder here goes on untouched."""
    start = first_build_word(words, verb)
    if start is None:
        return machine.client(["docker", *words])
    planned = plan(words, start, Path.cwd())
    if planned is None:
        return machine.client(["docker", *words])
    sent = pack.walk(planned.root, ignore_of(planned))
    identity = context.new_id()
    control = machine.control()
    try:
        context.put(control, identity, sent, machine.console)
        if planned.aside:
            context.put(control, planned.aside_id, planned.aside_entries(), machine.console)
        return machine.client(["docker", *planned.words], cwd=f"{context.WORK}/{identity}")
    finally:
        context.remove(control, identity, machine.console)
        if planned.aside:
            context.remove(control, planned.aside_id, machine.console)


def first_build_word(words: Sequence[str], verb: int) -> int | None:
    """The index behind the words that say "build", or None when they do not. Raises Usage for bake, which reads files here."""
    command = [words[verb]]
    behind = verb + 1
    if command[0] in ("image", "builder", "buildx"):
        arguments = scan(words, BUILDX, start=verb + 1).arguments
        if not arguments:
            return None
        command.append(words[arguments[0]])
        behind = arguments[0] + 1
    if command[0] == "buildx" and command[1] in ("bake", "f"):
        raise Usage(
            "docker buildx bake reads its files on this computer, which the machine cannot see yet.", hint=context.LATER
        )
    return behind if tuple(command) in BUILDS else None


def plan(words: Sequence[str], start: int, here: Path) -> Plan | None:
    """How to run the build in a copy; None when its context is not a folder here (standard input, a URL, or only --help)."""
    read = scan(words, BUILD, start=start, mixed=True)
    refuse_host_places(read)
    if len(read.arguments) != 1 or read.has("--help"):
        return None
    where = words[read.arguments[0]]
    if where == "-" or _REMOTE.match(where):
        return None
    root = (here / where).resolve()
    if not root.is_dir():
        raise Usage(f"the build context {where} is not a folder.", hint="docker build PATH: PATH is a folder, a URL or -")
    planned = Plan(root, list(words))
    planned.words[read.arguments[0]] = "."
    _place_dockerfile(planned, read, here)
    for option in read.all("--secret"):
        _place_value(planned, option, here, keys=("src", "source"), what="the secret")
    for option in read.all("--build-context"):
        _place_build_context(planned, option, here)
    return planned


def refuse_host_places(read: Scan) -> None:
    """Raises Usage for options whose result would stay in the machine instead of coming here."""
    for option in read.all(*_WRITES):
        raise Usage(f"{option.name} writes a file, and the machine cannot write on this computer yet.", hint=context.LATER)
    for option in read.all("-o", "--output"):
        if _names_a_place(option.value or ""):
            raise Usage(
                f"{option.name} {option.value} writes here, and the machine cannot write on this computer yet.",
                hint="Send it through the pipe: wherry docker build -o - … | tar -x",
            )
    for option in read.all("--cache-to", "--cache-from"):
        if "type=local" in (option.value or ""):
            raise Usage(f"{option.name} {option.value} is a folder here, which the machine cannot see yet.", hint=context.LATER)


def _names_a_place(output: str) -> bool:
    fields = dict(part.partition("=")[::2] for part in output.split(","))
    if "=" not in output:
        return output != "-"
    return fields.get("dest", "-") != "-" or fields.get("type") == "local"


def _place_dockerfile(planned: Plan, read: Scan, here: Path) -> None:
    given = read.all("-f", "--file")
    for option in given:
        value = option.value or ""
        if value != "-" and not _REMOTE.match(value):
            name = planned.place(value, here, "the Dockerfile")
            planned.words[option.word] = option.prefix + name
            if planned.is_aside(name):
                _place_ignore_aside(planned, name)
            else:
                planned.always |= {name, f"{name}.dockerignore"}
    if not given:
        planned.always |= {"Dockerfile", "Dockerfile.dockerignore"}
    planned.always.add(".dockerignore")


def _place_ignore_aside(planned: Plan, name: str) -> None:
    name = name.rpartition("/")[2]
    beside = planned.aside[name].with_name(f"{planned.aside[name].name}.dockerignore")
    if beside.is_file():
        planned.own_ignore = planned.aside[f"{name}.dockerignore"] = beside


def _place_value(planned: Plan, option: Option, here: Path, *, keys: tuple[str, ...], what: str) -> None:
    parts = []
    for part in (option.value or "").split(","):
        key, equals, value = part.partition("=")
        if equals and key in keys:
            value = planned.place(value, here, what)
            if not planned.is_aside(value):
                planned.always.add(value)
        parts.append(f"{key}{equals}{value}")
    planned.words[option.word] = option.prefix + ",".join(parts)


def _place_build_context(planned: Plan, option: Option, here: Path) -> None:
    name, equals, value = (option.value or "").partition("=")
    if not equals or _FETCHED.match(value):
        return
    if value.startswith("oci-layout:"):
        raise Usage(f"--build-context {option.value} is a folder here, which the machine cannot see yet.", hint=context.LATER)
    inside = planned.place(value, here, "the build context")
    if not planned.is_aside(inside):
        planned.always |= {inside, *(f"{inside}/{entry.name}" for entry in pack.walk(planned.root / inside))}
    planned.words[option.word] = f"{option.prefix}{name}={inside}"


def ignore_of(planned: Plan) -> Ignore | None:
    """The .dockerignore that counts: the Dockerfile's own one if it has one, else the context's."""
    candidates = sorted(name for name in planned.always if name.endswith(".dockerignore") and name != ".dockerignore")
    own = [planned.own_ignore] if planned.own_ignore is not None else []
    for file in [*own, *(planned.root / name for name in [*candidates, ".dockerignore"])]:
        if file.is_file():
            always = planned.always | {os.fspath(parent) for path in planned.always for parent in _parents(path)}
            return Ignore(parse(file.read_text(encoding="utf-8", errors="replace")), always)
    return None


def _parents(path: str) -> list[str]:
    return [parent.as_posix() for parent in Path(path).parents if parent.as_posix() != "."]
