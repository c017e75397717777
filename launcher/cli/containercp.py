"""`docker cp` with a container on one side and this computer on the other, by the machine's client."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from launcher.cli import context
from launcher.cli.shared import Client, Shared
from launcher.cli.words import options, scan
from launcher.errors import Usage, WherryError


def run(machine: Client, words: list[str], start: int) -> int:
    read = scan(words, options(""), start=start, mixed=True)
    if len(read.arguments) != 2:
        return machine.client(["docker", *words])
    source, target = (words[at] for at in read.arguments)
    inwards, outwards = in_container(target), in_container(source)
    if inwards == outwards or "-" in (source, target):
        return machine.client(["docker", *words])
    if inwards:
        follow, owner = read.is_on("-L", "--follow-link"), read.is_on("-a", "--archive")
        return _copy_in(machine, words, read.arguments[0], follow=follow, owner=owner)
    return _copy_out(machine, words, read.arguments)


def in_container(word: str) -> bool:
    """CONTAINER:PATH (docker/cli, cli/command/container/cp.go, splitCpArg)."""
    before, colon, _ = word.partition(":")
    return bool(colon) and not Path(word).is_absolute() and not before.startswith(".") and before != ""


def _copy_in(machine: Client, words: list[str], at: int, *, follow: bool, owner: bool) -> int:
    from launcher.cli.transfer import entries

    text = words[at]
    path = Path(text).resolve() if follow else Path(text)
    if not os.path.lexists(path):
        raise Usage(f"there is no {text} here.")
    last = text.replace(os.sep, "/").rsplit("/", 1)[-1]
    contents = path.is_dir() and last in (".", "..")
    path = path.resolve() if contents else path
    folder = path.is_dir() and (follow or not path.is_symlink() or last == "")
    name = (Path(text).absolute() if last not in (".", "..") else path.resolve()).name or "root"
    end = "/." if contents else "/" if last == "" else ""
    place = Shared(machine).place(path, follow=False)
    if place is not None:
        return machine.client(["docker", *words[:at], place + end, *words[at + 1 :]])
    identity, control = context.new_id("files"), machine.control()
    try:
        context.put(control, identity, entries(path, folder, name), machine.console, keep_owner=owner)
        changed = [*words[:at], f"{context.WORK}/{identity}/{name}{end}", *words[at + 1 :]]
        return machine.client(["docker", *changed])
    finally:
        context.remove(control, identity, machine.console)


def _copy_out(machine: Client, words: list[str], at: list[int]) -> int:
    from launcher.cli.transfer import Place, copy_out

    inner, target = words[at[0]].partition(":")[2], words[at[1]]
    name = posixpath.basename(posixpath.normpath("/" + inner))
    contents = inner.endswith("/.") or not name
    there = Shared(machine).place(target, write=True)
    if there is not None:
        end = "/" if target.endswith(("/", os.sep)) else ""
        return machine.client(["docker", *words[: at[1]], there + end, *words[at[1] + 1 :]])
    identity, control = context.new_id("files"), machine.control()
    place = f"{context.WORK}/{identity}"
    try:
        context.put(control, identity, [], machine.console)
        code = machine.client(["docker", *words[: at[1]], f"{place}/", *words[at[1] + 1 :]])
        if code == 0:
            with machine.console.telling() as reporter:
                copy_out(control, Place("", f"{place}/." if contents else f"{place}/{name}"), target, reporter)
        return code
    except Usage as error:
        raise WherryError(error.message, hint=error.hint) from error
    finally:
        context.remove(control, identity, machine.console)
