"""A machine's shares: told, added, removed; at once where it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from launcher import control, privacy, sharing
from launcher.config import MachineConfig
from launcher.errors import NotRunning, Usage, WherryError
from launcher.machine import configure
from launcher.machine.settings import existing
from launcher.machine.stop import running
from launcher.store import MachineDir

_FOLDERS: Final = "shares.folders"


@dataclass(frozen=True)
class Done:
    """What came of `add` or `remove`. `changed` is False when all was so already, for which `why` is a sentence; `again`:
    containers that have the folder must be started anew."""

    path: str
    read_only: bool
    changed: bool
    running: bool
    why: str = ""
    again: bool = False


def listing(name: str) -> list[dict[str, Any]]:
    """One entry for each share: id, path, guest, aliases, read_only, inside, state, detail, private (the places in it that are
    hidden), hidden (how many those are), virtiofs (whether virtiofsd serves it, or will from the next start on), why (it does
    not, where that is wanted).

    Of a machine that does not run what its config says, in the state "stopped". Raises NoSuchMachine, WherryError.
    """
    directory = existing(name)
    if running(directory):
        try:
            return asked(directory)
        except NotRunning:
            pass  # it ended meanwhile
    wanted = directory.read_config()
    found = sharing.shares_of(wanted)
    hidden = privacy.Private(found, privacy.hidden_places(wanted))
    why = _why_not_virtiofs(wanted) if wanted.shares.virtiofs else None
    rest = {"state": "stopped", "detail": ""}
    entries = [{**share._asdict(), **rest, "aliases": list(share.aliases), "private": hidden.there(share)} for share in found]
    return [
        {
            **entry, "hidden": len(entry["private"]),
            "virtiofs": why is not None and why.get(entry["id"]) == "", "why": why.get(entry["id"], "") if why else "",
        } for entry in entries
    ]  # fmt: skip


def _why_not_virtiofs(wanted: MachineConfig) -> dict[str, str]:
    """Of each share that is mounted itself, what would keep the next start from serving it over virtiofs; empty: nothing."""
    from launcher import virtiofs

    try:
        return {share.id: why for share, why in virtiofs.judged(wanted, virtiofs.find())}
    except WherryError as error:
        return {share.id: error.message.rstrip(".") for share in sharing.shares_of(wanted) if not share.inside}


def asked(directory: MachineDir) -> list[dict[str, Any]]:
    """The shares of a machine that runs, as its keeper tells. Raises NotRunning, and WherryError for a keeper without any."""
    try:
        found: list[dict[str, Any]] = control.ask(directory.control_socket, "shares")["shares"]
    except Usage as error:
        raise WherryError("the machine's keeper is too old for shares.", hint="wherry restart") from error
    return found


def add(name: str, path: str, read_only: bool) -> Done:
    """Share a folder, relative to where we are, or change how it is shared. Raises Usage or Refused for one that cannot be."""
    whole = sharing.whole(path, sharing.here())
    sharing.check(whole, sharing.shares_of(existing(name).read_config()))
    why, mounted = "", False

    def values(now: MachineConfig) -> dict[str, list[str]]:
        nonlocal why, mounted
        why = _needless(now, whole, read_only)
        mounted = any(sharing.same(share.path, whole) and not share.inside for share in sharing.shares_of(now))
        return {_FOLDERS: list(now.shares.folders) if why else _with(now, whole, read_only)}

    plan = configure.change_values(name, values, lambda _plan: None)
    if plan.changes and plan.running:
        _check_state(plan.directory, whole)
    changed = bool(plan.changes)
    return Done(whole, read_only, changed, plan.running, why, mounted and changed and plan.running)


def having(now: MachineConfig, folders: Iterable[str]) -> list[str]:
    """The folders of the config with these, whole paths with :ro or without it; those that the machine has so already, by
    themselves or in another share, are no new ones."""
    for folder in folders:
        path, read_only = sharing.split(folder)
        if not _needless(now, path, read_only):
            now = now.changed(shares=replace(now.shares, folders=tuple(_with(now, path, read_only))))
    return list(now.shares.folders)


def _needless(now: MachineConfig, path: str, read_only: bool) -> str:
    """Why it is shared like that already; empty when it is not."""
    from launcher import host

    shares = sharing.shares_of(now)
    real = host.current().real_path(path)
    share = sharing.find(shares, real)
    if share is None or share.read_only != read_only or privacy.Private(shares, privacy.hidden_places(now)).place(real):
        return ""
    mode = "read-only" if share.read_only else "read-write"
    if sharing.same(share.path, real):
        return f"{sharing.shown(path)} is shared {mode} already."
    return f"{sharing.shown(path)} is in {sharing.shown(share.path)}, which is shared {mode}."


def _with(now: MachineConfig, path: str, read_only: bool) -> list[str]:
    """The folders of the config with this one, which goes to the end: what was said last counts."""
    rest = _without(now, path)
    # The home needs no entry to be what it is without one.
    if not read_only and now.shares.home and sharing.same(path, sharing.home()):
        return rest
    return [*rest, path + (":ro" if read_only else "")]


def _without(now: MachineConfig, path: str) -> list[str]:
    return [entry for entry in now.shares.folders if not sharing.same(sharing.whole(sharing.split(entry)[0]), path)]


def _check_state(directory: MachineDir, path: str) -> None:
    """Raises WherryError when the machine did not get it. It stays in the config: what is in the way may go."""
    for share in asked(directory):
        if share["state"] == "failed" and sharing.same(share["path"], path):
            raise WherryError(f"{path} could not be shared: {share['detail']}", hint="wherry logs keeper")


def remove(name: str, path: str) -> Done:
    """Take back a share. Raises Usage when it is none that was added. `why` of what is still in another share says so."""
    whole = sharing.whole(path, sharing.here())

    def values(now: MachineConfig) -> dict[str, list[str]]:
        rest = _without(now, whole)
        if len(rest) == len(now.shares.folders) or (now.shares.home and sharing.same(whole, sharing.home())):
            raise _no_such(now, name, whole)
        return {_FOLDERS: rest}

    plan = configure.change_values(name, values, lambda _plan: None)
    return Done(whole, False, True, plan.running, _left(plan.directory.read_config(), whole))


def _left(now: MachineConfig, path: str) -> str:
    """What became of a folder that had been shared by itself in another share; empty for one that was in none."""
    from launcher import host

    shares = sharing.shares_of(now)
    real = host.current().real_path(path)
    share = sharing.find(shares, real)
    if share is None:
        return ""
    shown = sharing.shown(path)
    if privacy.Private(shares, privacy.hidden_places(now)).place(real):
        return f"{shown} is hidden from the machine again."
    mode = "read-only" if share.read_only else "read-write"
    return f"{shown} is no share of its own any more: it is in {sharing.shown(share.path)}, which is shared {mode}."


def _no_such(now: MachineConfig, name: str, path: str) -> Usage:
    from launcher import host

    wherry = "wherry" if name == "default" else f"wherry --machine {name}"
    shares = sharing.shares_of(now)
    share = sharing.find(shares, host.current().real_path(path))
    if share is None:
        return Usage(f"{path} is not shared.", hint=f"{wherry} share list")
    own = sharing.same(share.path, path)
    if share.id == sharing.HOME:
        if own:
            return Usage(f"{path} is your home, which is shared by a setting.", hint=f"{wherry} config set shares.home false")
        return Usage(f"{path} is in your home, and no share of its own.", hint=_hiding(now, wherry, path))
    if own:
        return Usage(f"{path} is shared with your home.", hint=f"{wherry} config set shares.home false")
    return Usage(f"{path} is in {share.path}, and no share of its own.", hint=f"{wherry} share remove {share.path}")


def _hiding(now: MachineConfig, wherry: str, path: str) -> str:
    """The command that hides it; what is hidden already stays so."""
    import shlex

    places = [*now.shares.hidden, path]
    if not Path(path).exists() or "," in "".join(places):
        return f"{wherry} share list"
    return f"To hide it from the machine: {wherry} config set {shlex.quote('shares.hidden=' + ','.join(places))}"


def change_for_up(name: str, folders: Sequence[str], no_home: bool) -> list[Done]:
    """What `up --share` and `--no-home` say, for a machine that is there."""
    if no_home:
        configure.change(name, {"shares.home": "false"}, lambda _plan: None)
    return [add(name, *sharing.split(folder)) for folder in folders]
