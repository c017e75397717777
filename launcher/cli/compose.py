"""`wherry compose`: in the project's folder when a share has it, else in a copy that stays in the machine while the project has
containers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from launcher import control, sharing
from launcher.cli import containercp, context, pack, remote
from launcher.cli.dockerflags import COMPOSE
from launcher.cli.shared import Shared
from launcher.cli.words import Scan, options, scan
from launcher.console import Console
from launcher.errors import Usage, WherryError

_NAMES: Final = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
# Commands that need no project.
_FREE: Final = frozenset({"version", "ls", "help", "completion"})
# Values of these keys, and items of lists below those, that begin with ".." are paths in a compose file.
_KEYS: Final = ("build", "context", "dockerfile", "source", "file", "env_file", "path", "device", "extends")
_LISTS: Final = frozenset({"volumes", "env_file", "include", "label_file", "devices", "path", "additional_contexts"})
_ABOVE: Final = r"""["']?(?P<path>\.\.(?:/[^\s"':]*)?)["']?(?=\s*(?::|$|\#))"""
_VALUE: Final = re.compile(rf"^\s*(?:-\s+)?(?:{'|'.join(_KEYS)})\s*:\s*{_ABOVE}")
_ITEM: Final = re.compile(rf"^\s*-\s+{_ABOVE}")
_OPENED: Final = re.compile(r"^(?P<indent>\s*)(?P<item>-\s+)?(?P<key>[\w.-]+)\s*:\s*(?:[&!]\S+\s*)?(?:\#.*)?$")
_DOTENV: Final = re.compile(r"""^\s*(?:export\s+)?(?P<name>COMPOSE_FILE|COMPOSE_PATH_SEPARATOR)\s*=\s*(?P<value>.*?)\s*$""")


class Client(Protocol):
    """The machine, as this module needs it."""

    name: str
    console: Console

    def control(self) -> Path: ...
    def client(self, argv: list[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None) -> int: ...


@dataclass
class Project:
    """A compose project on this computer and where the machine has it."""

    folder: Path
    shared: Shared
    where: str | None = None  # by a share; else there is a copy
    words: list[str] = field(default_factory=list)  # compose's words with paths that hold in the machine

    @property
    def identity(self) -> str:
        return "compose-" + hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]

    @property
    def remote(self) -> str:
        """Its place there. Of a copy too the folder's own name stays, since compose makes the project's name from it."""
        return self.where or f"{context.WORK}/{self.identity}/{self.folder.name}"

    def place(self, path: Path) -> str:
        """Where a path of this computer is in the machine. Raises Usage when it is outside of the copy, or of all shares."""
        if self.where is not None:
            return self.shared.needed(path, "the file")
        relative = context.inside(self.folder, path, self.folder, "the file")
        return self.remote if relative == "." else f"{self.remote}/{relative}"


def run(machine: Client, before: list[str], words: list[str]) -> int:
    """Run `docker BEFORE compose WORDS` in a copy of the project."""
    from launcher.cli.proxy import environment

    env = environment()
    env["HOME"] = sharing.guest_path(sharing.home())  # what compose makes of ~; docker's own settings stay the machine's
    read, shared = scan(words, COMPOSE), Shared(machine)
    words = with_places(words, read, shared)
    project = find_project(words, read, Path.cwd(), env, shared)
    if project is None:
        return machine.client(["docker", *before, "compose", *words], env=env)
    env.pop("COMPOSE_FILE", None)  # its files are in the words now
    argv = ["docker", *before, "compose", *project.words]
    path = machine.control()
    if project.where is not None:
        code = machine.client(argv, cwd=shared.here() or project.where, env=env)
        _leave_copy(machine.name, path, replace(project, where=None), machine.console)
        return code
    sent = bring(path, project, machine.console)
    try:
        return machine.client(argv, cwd=_directory(project), env=env)
    finally:
        clean_up(machine.name, path, project, sent, machine.console)


def find_project(words: Sequence[str], read: Scan, here: Path, env: Mapping[str, str], shared: Shared) -> Project | None:
    """The project that compose would find here; None when the command needs none, or there is none and compose says so."""
    command = words[read.arguments[0]] if read.arguments else ""
    if not command or command in _FREE or read.has("--help", "-h", "--version", "-v") or "--help" in words:
        return None
    files = [option.value or "" for option in read.all("-f", "--file")]
    if "-" in files:
        if shared.here() is not None:
            return None
        raise Usage("a compose file on standard input cannot be copied with its folder.", hint="Write it to a file: -f FILE")
    if not files:
        files = _listed(read, here, env)
    found = [(here / name).resolve() for name in files] or _default_files(here)
    directory = read.value("--project-directory", "--workdir")
    if not found and directory:
        found = _default_files((here / directory).resolve(), parents=False)
    if not found:
        return None
    project = Project((here / directory).resolve() if directory else found[0].parent, shared)
    named = [here / (option.value or "") for option in read.all("--env-file")]
    if all(shared.place(path) for path in [project.folder, *found, *named, *_above(found)]):
        project.where = shared.place(project.folder)
    _rewrite(project, words, read, found, here)
    for file in found if project.where is None else []:
        check_inside(project.folder, file)
    return project


def _listed(read: Scan, here: Path, env: Mapping[str, str]) -> list[str]:
    """The files of COMPOSE_FILE: of the environment, else of the files that compose takes it from."""
    given = [option.value or "" for option in read.all("--env-file")]
    place = here / (read.value("--project-directory", "--workdir") or "")
    kept: dict[str, str] = {}
    for file in [here / name for name in given] or [place / ".env"]:
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue  # compose says so itself where it must be there
        for match in filter(None, map(_DOTENV.match, lines)):
            kept[match["name"]] = _unquoted(match["value"])
    listed = env.get("COMPOSE_FILE") or kept.get("COMPOSE_FILE", "")
    separator = env.get("COMPOSE_PATH_SEPARATOR") or kept.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
    return [name for name in listed.split(separator) if name]


def _unquoted(value: str) -> str:
    if value[:1] in ("'", '"'):
        return value[1:].partition(value[0])[0]
    return value.split(" #", 1)[0].rstrip()


def _default_files(folder: Path, *, parents: bool = True) -> list[Path]:
    """The compose file in the folder or the nearest folder above it, with its override."""
    for place in (folder, *(folder.parents if parents else ())):
        for name in _NAMES:
            if (place / name).is_file():
                override = (place / name).with_suffix(f".override{Path(name).suffix}")
                return [place / name, override] if override.is_file() else [place / name]
    return []


def with_places(words: list[str], read: Scan, shared: Shared) -> list[str]:
    """The words with files of this computer that the command itself reads or writes as the machine has them. Raises Usage for
    one that it has not."""
    command = words[read.arguments[0]] if read.arguments else ""
    changed, start = list(words), read.arguments[0] + 1 if read.arguments else 0
    if command == "cp":
        inner = scan(words, options("--index"), start=start, mixed=True)
        for number, at in enumerate(inner.arguments):
            if not containercp.in_container(words[at]) and words[at] != "-":
                changed[at] = shared.needed(words[at], "compose cp:", write=number > 0)
    elif command in ("config", "convert", "export"):
        for option in scan(words, options("-o --output --format --hash"), start=start, mixed=True).all("-o", "--output"):
            changed[option.word] = option.prefix + shared.needed(option.value or "", option.name, write=True)
    return changed


def _above(found: Sequence[Path]) -> Iterator[Path]:
    """What the compose files name above their own folders."""
    for file in found:
        with contextlib.suppress(OSError):  # which is said when it is read for a copy, or by compose
            for _, path in _paths_above(file.read_text(encoding="utf-8", errors="replace")):
                yield file.parent / path


def check_inside(folder: Path, file: Path) -> None:
    """Raises Usage when the compose file is missing or names a path above the project's folder, which is not copied."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Usage(f"{file} cannot be read: {error.strerror}.") from error
    for number, path in _paths_above(text):
        context.inside(folder, path, file.parent, f"{file.name}, line {number}:")


def _paths_above(text: str) -> Iterator[tuple[int, str]]:
    """Line and path of what leads above the file's folder. The words of a command may begin with ".." too, and are none."""
    above: list[tuple[int, str]] = []  # the keys that are open, each with its column
    for number, line in enumerate(text.splitlines(), 1):
        words = line.lstrip()
        if not words or words.startswith("#"):
            continue
        column, item = len(line) - len(words), words.startswith("-")
        # An item may stand in the column of its list's key.
        while above and (above[-1][0] > column or (above[-1][0] == column and not item)):
            above.pop()
        match = _VALUE.match(line) or (_ITEM.match(line) if above and above[-1][1] in _LISTS else None)
        if match is not None:
            yield number, match["path"]
        opened = _OPENED.match(line)
        if opened is not None:
            above.append((len(opened["indent"]) + len(opened["item"] or ""), opened["key"]))


def _rewrite(project: Project, words: Sequence[str], read: Scan, found: list[Path], here: Path) -> None:
    """The words with all files named as they are called in the machine."""
    changed = list(words)
    for option in read.all("-f", "--file", "--env-file", "--project-directory", "--workdir"):
        if option.value is not None:
            changed[option.word] = option.prefix + project.place((here / option.value).resolve())
    # What compose finds by itself in the folder it starts in needs no words.
    if not read.has("-f", "--file") and found != _default_files(here, parents=False):
        changed = [*[word for file in found for word in ("-f", project.place(file))], *changed]
        if not read.has("--project-directory", "--workdir"):
            changed = ["--project-directory", project.remote, *changed]
    project.words = changed


def _directory(project: Project) -> str:
    """The caller's place in the copy, so that ${PWD} and relative words hold; the project's folder when it is elsewhere."""
    try:
        relative = Path.cwd().resolve().relative_to(project.folder).as_posix()
    except ValueError:
        return project.remote
    return project.remote if relative == "." else f"{project.remote}/{relative}"


# $1 is the copy. `since` marks when it was first made, to tell later what containers wrote into it.
_LOOK: Final = 'mkdir -p "$1" && cd "$1" && { [ -e since ] || : >since; } && if [ -e sent ]; then cat sent; fi'
_WRITTEN: Final = 'cd "$1" && find "$2" -type f -newer since'


def bring(path: Path, project: Project, console: Console) -> set[str]:
    """Have the copy in the machine as the folder is now; the names that are in it from here."""
    entries = pack.walk(project.folder)
    mark = pack.fingerprint(entries)
    place = f"{context.WORK}/{project.identity}"
    known = remote.call(path, ["sh", "-c", _LOOK, "sh", place]).check("looking for the copy").stdout.decode(errors="replace")
    prefix = f"{project.folder.name}/"
    if known != mark:
        folder = shlex.quote(os.fspath(project.folder))
        console.story(f"{folder} is not shared: containers see a copy of it, as it is now.   wherry share add {folder}")
        # The mark comes last: it is there only when all that comes before it is.
        mark_file = ("sent", mark.encode())
        context.put(path, project.identity, entries, console, prefix=prefix, keep_owner=True, extra=[mark_file])
    return {prefix + entry.name for entry in entries}


def clean_up(name: str, path: Path, project: Project, sent: set[str], console: Console) -> None:
    """Remove the copy when the project has no container left; not if containers wrote files into it: those are only there."""
    try:
        if _has_containers(path, project):
            return
        place = f"{context.WORK}/{project.identity}"
        done = remote.call(path, ["sh", "-c", _WRITTEN, "sh", place, project.folder.name])
        written = [file for file in done.stdout.decode(errors="replace").splitlines() if file not in sent]
    except WherryError as error:
        console.warning(f"the copy {project.remote} in the machine was left there: {error.message}")
        return
    if written:
        console.warning(
            f"containers wrote {_files(len(written))} into the copy of {project.folder.name}: {written[0]} … It stays.\n"
            f"        wherry cp {name}:{project.remote} .        and then: wherry ssh rm -r {place}"
        )
        return
    context.remove(path, project.identity, console)


def _leave_copy(name: str, path: Path, project: Project, console: Console) -> None:
    """Remove a copy from before the folder was shared, or tell what containers wrote into it."""
    if remote.call(path, ["test", "-d", f"{context.WORK}/{project.identity}"]).code == 0:
        clean_up(name, path, project, set(), console)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _has_containers(path: Path, project: Project) -> bool:
    """Whether the engine knows a container of the project, running or not."""
    filters = json.dumps({"label": [f"com.docker.compose.project.working_dir={project.remote}"]})
    answer = control.ask(path, "engine", method="GET", path=f"/containers/json?all=1&filters={quote(filters)}")
    if answer["status"] != 200:
        raise WherryError(f"the engine answered {answer['status']}: {answer['body'].strip()}")
    return bool(json.loads(answer["body"]))
