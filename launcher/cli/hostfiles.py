"""Files of this computer in the words of the machine's client: named there when a share has them, else copied, or written and
read here by redirection.

Docker's client reads and writes them itself; the one in the machine has another disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from launcher import sharing
from launcher.cli import containercp, context
from launcher.cli.dockerflags import RUN
from launcher.cli.shared import Client, Shared
from launcher.cli.words import Option, Options, options, scan
from launcher.errors import Usage

_EXEC: Final = options("--detach-keys -e --env --env-file -u --user -w --workdir")
_MOUNTS: Final = ("-v", "--volume", "--mount")
_SOURCE: Final = re.compile(r"""((?:^|,)"?(?:source|src)=)((?:\.|[A-Za-z]:[\\/]|\\\\)[^,"]*)""")
_DRIVE: Final = re.compile(r"[A-Za-z]:[\\/]|\\\\|//[?.]/")
_READS: Final = ("--env-file", "--label-file")
_URL: Final = re.compile(r"https?://")
_GROUPS: Final = ("container", "image")


Handler = Callable[[Client, list[str], int], int]


def handler(words: Sequence[str], verb: int) -> tuple[Handler, int] | None:
    """What runs the command at `verb`, and where its own words begin; None for one that names no file of this computer."""
    at = verb + 1 if words[verb] in _GROUPS else verb
    found = _HANDLERS.get(words[at]) if at < len(words) else None
    return (found, at + 1) if found else None


# run, create, exec


def _with_known(known: Options) -> Handler:
    def run(machine: Client, words: list[str], start: int) -> int:
        return _with_files(machine, words, scan(words, known, start=start).found)

    return run


def _with_files(machine: Client, words: list[str], found: Sequence[Option]) -> int:
    identity, changed, shared = context.new_id("files"), list(words), Shared(machine)
    copies: list[tuple[str, bytes]] = []
    written: Path | None = None
    for option in found:
        value = option.value or ""
        before, file = (value[:8], value[8:]) if option.name == "--security-opt" else ("", value)
        place: str | None
        if option.name in _READS or (before in ("seccomp=", "seccomp:") and file not in ("unconfined", "builtin")):
            place = shared.place(file)
            if place is None:
                place = f"{context.WORK}/{identity}/{len(copies)}"
                copies.append((f"{len(copies)}", _read(option.name, file)))
        elif option.name == "--cidfile":
            target = _to_be_written(file)
            place = shared.place(file, write=True)
            if place is None:
                written, place = target, f"{context.WORK}/{identity}/cid"
        else:
            if option.name in _MOUNTS:
                changed[option.word] = f"{option.prefix}{_from_here(option.name, value)}"
            continue
        changed[option.word] = f"{option.prefix}{before}{place}"
    if not copies and written is None:
        return machine.client(["docker", *changed])
    control = machine.control()
    try:
        context.put(control, identity, [], machine.console, extra=copies)
        return machine.client(["docker", *changed])
    finally:
        if written is not None:
            _fetch(control, f"{context.WORK}/{identity}/cid", written)
        context.remove(control, identity, machine.console)


def _from_here(option: str, value: str) -> str:
    """A mount whose source is relative to our folder, which the machine may not have, or on a drive: a client on Linux takes
    the drive's colon for another (docker/cli, opts/mount.go)."""
    if option == "--mount":
        return _SOURCE.sub(lambda found: found[1] + _whole(found[2]), value)
    parts = sharing.split_bind(value)
    if parts is None or not (parts[0].startswith(".") or _DRIVE.match(parts[0])):
        return value
    if sharing.is_network(parts[0]):
        raise Usage(f"{parts[0]} is a network path, which the machine cannot have.", hint=f"net use Z: {parts[0]}")
    return _whole(parts[0]) + parts[1]


def _whole(source: str) -> str:
    return sharing.guest_path(sharing.whole(source, sharing.here()))


def _read(option: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes()  # also of <(a command)
    except OSError as error:
        raise Usage(f"{option} {file} cannot be read here: {error.strerror}.") from error


def _to_be_written(file: str) -> Path:
    path = Path(file).absolute()
    if os.path.lexists(path):
        raise Usage(f"container ID file found: {file}", hint="Make sure that its container does not run, or delete the file.")
    if not path.parent.is_dir():
        raise Usage(f"there is no folder {path.parent} here.")
    return path


def _fetch(control: Path, source: str, target: Path) -> None:
    from launcher.cli import remote

    done = remote.call(control, ["cat", source])
    if done.code == 0:  # else no container came to be
        with target.open("xb") as file:
            file.write(done.stdout)


# save, export: our standard output is the file; load, import: our standard input.


def _to_file(known: Options) -> Handler:
    def run(machine: Client, words: list[str], start: int) -> int:
        given = scan(words, known, start=start, mixed=True).all("-o", "--output")
        if not given:
            return machine.client(["docker", *words])
        with _output(Path(given[-1].value or "")) as done:
            return done(machine.client(["docker", *_without(words, given)]))

    return run


def _load(machine: Client, words: list[str], start: int) -> int:
    given = scan(words, options("-i --input --platform"), start=start, mixed=True).all("-i", "--input")
    if not given:
        return machine.client(["docker", *words])
    with _input(given[-1].value or ""):
        return machine.client(["docker", *_without(words, given)])


def _import(machine: Client, words: list[str], start: int) -> int:
    at = scan(words, options("-c --change -m --message --platform"), start=start, mixed=True).arguments
    source = words[at[0]] if at else "-"
    if source == "-" or _URL.match(source):
        return machine.client(["docker", *words])
    with _input(source):
        return machine.client(["docker", *words[: at[0]], "-", *words[at[0] + 1 :]])


def _without(words: Sequence[str], given: Sequence[Option]) -> list[str]:
    """The words less these options. One may be the last letter of several: `-qi FILE`."""
    changed: list[str | None] = list(words)
    for option in given:
        single = bool(option.prefix)
        at = option.word if single else option.word - 1
        head = option.prefix.rstrip("=") if single else words[at]
        changed[option.word] = None
        changed[at] = None if head == option.name else head[:-1]
    return [word for word in changed if word is not None]


@contextlib.contextmanager
def _redirected(descriptor: int, opened: int) -> Iterator[None]:
    sys.stdout.flush()
    kept = os.dup(descriptor)
    try:
        os.dup2(opened, descriptor)
        os.close(opened)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


@contextlib.contextmanager
def _input(file: str) -> Iterator[None]:
    try:
        opened = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise Usage(f"{file} cannot be read here: {error.strerror}.") from error
    with _redirected(0, opened):
        yield


@contextlib.contextmanager
def _output(target: Path) -> Iterator[Callable[[int], int]]:
    """Whole or not at all, as docker does it; what is no plain file is written as it is. What it gives hears the exit code."""
    from launcher import files

    special = os.path.lexists(target) and not target.is_file()
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise Usage(f"{target} cannot be a file here.")
    written = target if special else files.temporary(target.absolute())
    codes: list[int] = []

    def done(code: int) -> int:
        codes.append(code)
        return code

    try:
        flags = os.O_WRONLY | getattr(os, "O_BINARY", 0) | (0 if special else os.O_CREAT | os.O_EXCL)
        with _redirected(1, os.open(written, flags, 0o600)):
            yield done
        if codes == [0] and not special:
            written.replace(target.resolve())
    finally:
        if not special:
            written.unlink(missing_ok=True)


_HANDLERS: Final[dict[str, Handler]] = {
    "run": _with_known(RUN), "create": _with_known(RUN), "exec": _with_known(_EXEC), "cp": containercp.run,
    "save": _to_file(options("-o --output --platform")), "export": _to_file(options("-o --output")),
    "load": _load, "import": _import,
}  # fmt: skip
