"""`docker build` by the machine's client: in the folder itself when a share has it, else in a copy of the context."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from launcher.cli import context, pack
from launcher.cli.dockerflags import BUILD, BUILDS, BUILDX
from launcher.cli.ignore import Ignore, parse
from launcher.cli.shared import Client, Shared
from launcher.cli.transfer import entries
from launcher.cli.words import Option, Scan, scan
from launcher.errors import Usage

# What docker takes for a context that it fetches itself.
_REMOTE: Final = re.compile(r"(https?|git|ssh|git\+\w+)://|git@|github\.com/")
_FETCHED: Final = re.compile(r"(https?|git|ssh|docker-image|target)(://|:)|git@")
_LAYOUT: Final = re.compile(r"oci-layout:(?://)?(?P<path>.+?)(?P<rest>(?::[\w.-]+)?(?:@sha256:[0-9a-f]+)?)")
# Options whose value is a file to write.
_WRITES: Final = ("--iidfile", "--metadata-file")


@dataclass
class Plan:
    """A build to be run in the machine: docker's words with paths that hold there, and what .dockerignore cannot keep back."""

    root: Path
    words: list[str]
    shared: Shared
    in_place: bool  # a share has the context; else it is copied
    always: set[str] = field(default_factory=set)
    aside: dict[str, Path] = field(default_factory=dict)  # what is outside of the context: its name in a copy of its own
    aside_id: str = field(default_factory=lambda: context.new_id("files"))
    own_ignore: Path | None = None  # of a Dockerfile outside of the context

    def place(self, value: str, here: Path, what: str) -> str:
        """Where the file or folder is in the machine. Raises Usage when it is not there."""
        if not os.path.lexists(here / value):
            raise Usage(f"{what} {value} is not here.")
        if not self.in_place:
            try:
                return context.inside(self.root, value, here, what)
            except Usage:
                pass
        path = (here / value).resolve()
        place = self.shared.place(path)
        if place is None:
            name = f"{len(self.aside)}-{path.name}"
            self.aside[name] = path
            place = f"{context.WORK}/{self.aside_id}/{name}"
        return place

    def is_outside(self, place: str) -> bool:
        """Whether it is in no copy of the context."""
        return place.startswith("/")

    def aside_entries(self) -> list[pack.Entry]:
        return [entry for name, path in self.aside.items() for entry in entries(path, path.is_dir(), name)]


def run(machine: Client, words: list[str], verb: int) -> int:
    """Run `docker WORDS`, whose command begins at `verb`; what is not a build from a folder here goes on untouched."""
    shared = Shared(machine)
    start = first_build_word(words, verb, shared)
    if start is None:
        return machine.client(["docker", *words])
    read = scan(words, BUILD, start=start, mixed=True)
    words = with_places(words, read, shared)
    planned = plan(words, read, Path.cwd(), shared)
    if planned is None:
        return machine.client(["docker", *words])
    control, identity, copied = machine.control(), context.new_id("build"), []
    try:
        if not planned.in_place:
            copied.append(identity)
            context.put(control, identity, pack.walk(planned.root, ignore_of(planned)), machine.console)
        if planned.aside:
            copied.append(planned.aside_id)
            context.put(control, planned.aside_id, planned.aside_entries(), machine.console)
        return machine.client(["docker", *planned.words], cwd=None if planned.in_place else f"{context.WORK}/{identity}")
    finally:
        for made in copied:
            context.remove(control, made, machine.console)


def first_build_word(words: Sequence[str], verb: int, shared: Shared) -> int | None:
    """The index behind the words that say "build", or None when they do not. Raises Usage for a bake whose files, which we do
    not read, are not shared."""
    command = [words[verb]]
    behind = verb + 1
    if command[0] in ("image", "builder", "buildx"):
        arguments = scan(words, BUILDX, start=verb + 1).arguments
        if not arguments:
            return None
        command.append(words[arguments[0]])
        behind = arguments[0] + 1
    if command[0] == "buildx" and command[1] in ("bake", "f"):
        shared.needed(Path.cwd(), "docker buildx bake reads files here:")
        for option in scan(words, BUILD, start=behind, mixed=True).all("-f", "--file"):
            if option.value not in (None, "-"):
                shared.needed(option.value or "", option.name)
    return behind if tuple(command) in BUILDS else None


def plan(words: Sequence[str], read: Scan, here: Path, shared: Shared) -> Plan | None:
    """How to run the build; None when its context is not a folder here (standard input, a URL, or only --help)."""
    if len(read.arguments) != 1 or read.has("--help"):
        return None
    where = words[read.arguments[0]]
    if where == "-" or _REMOTE.match(where):
        return None
    root = (here / where).resolve()
    if not root.is_dir():
        raise Usage(f"the build context {where} is not a folder.", hint="docker build PATH: PATH is a folder, a URL or -")
    place = shared.place(root)
    planned = Plan(root, list(words), shared, in_place=place is not None)
    planned.words[read.arguments[0]] = place or "."
    _place_dockerfile(planned, read, here)
    for option in read.all("--secret"):
        _place_value(planned, option, here, keys=("src", "source"), what="the secret")
    for option in read.all("--build-context"):
        _place_build_context(planned, option, here)
    return planned


def with_places(words: Sequence[str], read: Scan, shared: Shared) -> list[str]:
    """The words with the places that docker writes to, or has a cache in, as the machine has them. Raises Usage for one that
    it has not: what is written would stay there."""
    changed = list(words)
    for option in read.all(*_WRITES):
        changed[option.word] = option.prefix + shared.needed(option.value or "", option.name, write=True)
    for option in read.all("-o", "--output"):
        value = option.value or ""
        if "=" not in value:
            changed[option.word] = option.prefix + (value if value == "-" else shared.needed(value, option.name, write=True))
        elif _names_a_place(value):
            changed[option.word] = option.prefix + _with_place(value, "dest", option.name, shared, write=True)
    for name, key in (("--cache-to", "dest"), ("--cache-from", "src")):
        for option in read.all(name):
            if "type=local" in (option.value or ""):
                changed[option.word] = option.prefix + _with_place(option.value or "", key, name, shared, write=key == "dest")
    return changed


def _with_place(value: str, key: str, what: str, shared: Shared, *, write: bool) -> str:
    parts = []
    for part in value.split(","):
        name, equals, path = part.partition("=")
        parts.append(f"{name}={shared.needed(path, what, write=write)}" if equals and name == key and path != "-" else part)
    return ",".join(parts)


def _names_a_place(output: str) -> bool:
    fields = dict(part.partition("=")[::2] for part in output.split(","))
    return fields.get("dest", "-") != "-"


def _place_dockerfile(planned: Plan, read: Scan, here: Path) -> None:
    given = read.all("-f", "--file")
    for option in given:
        value = option.value or ""
        if value != "-" and not _REMOTE.match(value):
            name = planned.place(value, here, "the Dockerfile")
            planned.words[option.word] = option.prefix + name
            if planned.is_outside(name):
                _place_ignore(planned, (here / value).resolve(), name)
            else:
                planned.always |= {name, f"{name}.dockerignore"}
    if not given:
        planned.always |= {"Dockerfile", "Dockerfile.dockerignore"}
    planned.always.add(".dockerignore")


def _place_ignore(planned: Plan, file: Path, name: str) -> None:
    beside = file.with_name(f"{file.name}.dockerignore")
    if beside.is_file():
        planned.own_ignore = beside
        if name.startswith(f"{context.WORK}/"):
            planned.aside[f"{name.rpartition('/')[2]}.dockerignore"] = beside


def _place_value(planned: Plan, option: Option, here: Path, *, keys: tuple[str, ...], what: str) -> None:
    parts = []
    for part in (option.value or "").split(","):
        key, equals, value = part.partition("=")
        if equals and key in keys:
            value = planned.place(value, here, what)
            if not planned.is_outside(value):
                planned.always.add(value)
        parts.append(f"{key}{equals}{value}")
    planned.words[option.word] = option.prefix + ",".join(parts)


def _place_build_context(planned: Plan, option: Option, here: Path) -> None:
    name, equals, value = (option.value or "").partition("=")
    if not equals or _FETCHED.match(value):
        return
    if value.startswith("oci-layout:"):
        planned.words[option.word] = f"{option.prefix}{name}={_oci_layout(planned, value)}"
        return
    inside = planned.place(value, here, "the build context")
    if not planned.is_outside(inside):
        planned.always |= {inside, *(f"{inside}/{entry.name}" for entry in pack.walk(planned.root / inside))}
    planned.words[option.word] = f"{option.prefix}{name}={inside}"


def _oci_layout(planned: Plan, value: str) -> str:
    """oci-layout://PATH[:TAG][@DIGEST], whose folder must be shared."""
    match = _LAYOUT.fullmatch(value)
    if match is None:
        return value
    return f"oci-layout://{planned.shared.needed(match['path'], '--build-context')}{match['rest']}"


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
