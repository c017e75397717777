"""doctor: look at everything, change nothing. Works without a machine and with a broken one."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterator
from typing import Any

from launcher import __version__, host, images, sharing, store
from launcher.config import MachineConfig
from launcher.errors import NoSuchMachine, WherryError
from launcher.machine import autostart, doctor_engines, doctor_host, inspect, shares
from launcher.machine.about import judged_iso, release_iso
from launcher.machine.checks import Check, failure, guarded, ok, warning
from launcher.store import MachineDir


def doctor(name: str, *, named: bool) -> list[Check]:
    """All checks, in the order in which one would ask. Raises NoSuchMachine when a machine that was `named` is not there."""
    directory = store.machine(name)
    if not directory.exists() and named:
        raise NoSuchMachine(f"there is no machine {name!r}.", hint="wherry list")
    config = _config(directory)
    found = inspect.status(name) if directory.exists() else {"status": "none"}
    running = found["status"] == "running"
    built = _built(config)
    checks = [ok("wherry", f"{__version__}, Python {platform.python_version()} ({sys.executable}), {platform.platform()}")]
    checks += guarded("terminal", doctor_host.terminal)
    checks += guarded("home", doctor_host.folders)
    checks += guarded("memory", lambda: doctor_host.memory(config, running))
    checks += guarded("qemu", lambda: doctor_host.qemu(config))
    checks += guarded("virtiofs", lambda: doctor_host.virtiofs(config))
    checks += guarded("iso", lambda: _iso(directory, config))
    checks += guarded("machine", lambda: _machine(directory, found))
    checks += guarded("keys", lambda: _keys(directory))
    checks += guarded("shares", lambda: _shares(directory, config))
    checks += guarded("sockets", lambda: doctor_host.sockets(directory))
    checks += guarded("engine socket", lambda: doctor_engines.ours(directory, found))
    checks += guarded("clock", lambda: doctor_host.clock(built, directory if running else None))
    checks += guarded("other engines", doctor_engines.engines)
    checks += guarded("links", doctor_engines.linked)
    checks += guarded("autostart", lambda: _autostart(directory))
    checks += guarded("proxy", doctor_host.proxies)
    return checks


def failed(checks: list[Check]) -> bool:
    return any(check.status == "failure" for check in checks)


def _config(directory: MachineDir) -> MachineConfig | None:
    try:
        return directory.read_config()
    except WherryError:
        return None


def _built(config: MachineConfig | None) -> str:
    try:
        return str(images.by_sha(config.iso).manifest.get("built") or "") if config else ""
    except WherryError:
        return ""


def _autostart(directory: MachineDir) -> Iterator[Check]:
    """What starts at login, where something is to."""
    found = autostart.status(directory.name) if directory.config_file.exists() else autostart.Autostart(False)
    again = (
        f"wherry autostart enable{' --now' if found.now else ''}{'' if directory.name == 'default' else ' ' + directory.name}"
    )
    if found.enabled and not os.access(found.program, os.X_OK):
        yield warning("autostart", f"at login {found.program} is to start, which is gone", again)
    elif found.enabled:
        yield ok(
            "autostart", f"{directory.name} {'starts at login' if found.now else 'starts with its first use after a login'}"
        )


def _iso(directory: MachineDir, config: MachineConfig | None) -> Iterator[Check]:
    """The machine's ISO: there, whole, its age, what in it is below its floor."""
    if config is None and directory.exists():
        yield ok("iso", "which one cannot be known: machine.toml cannot be read")
        return
    iso = images.by_sha(config.iso) if config else release_iso(host.native_arch())
    if iso is None:
        yield ok("iso", "none is here yet: wherry up gets it")
        return
    judged = judged_iso(iso)
    about = f"{iso.version} {iso.arch} {iso.sha256[:12]}, whole by its size"
    if judged["days"] is None:
        yield warning("iso", f"{about}; when it was built is not known", "wherry upgrade")
    elif judged["old"]:
        yield warning("iso", f"{about}; {judged['days']} days old", "wherry upgrade")
    else:
        yield ok("iso", f"{about}; {max(judged['days'], 0)} days old")
    for below in judged["below"]:
        yield warning("iso", below, "wherry upgrade")


def _machine(directory: MachineDir, found: dict[str, Any]) -> Iterator[Check]:
    name = directory.name
    status = found["status"]
    others = [item["name"] for item in inspect.list_machines() if item["status"] == "broken" and item["name"] != name]
    if status == "none":
        yield ok("machine", "there is none yet: wherry up makes it")
    elif status == "broken":
        yield failure("machine", f"{name} is broken: {found['problem']}", found.get("next") or f"wherry repair {name}")
    elif found.get("last_error"):
        yield warning("machine", f"{name} is {status}; last: {found['last_error'].get('message')}", f"wherry up {name}")
    else:
        yield ok("machine", f"{name} is {status}")
    for cause, count in (found.get("restarts") or {}).items():
        yield warning("machine", f"its last start was repeated: {cause}, {count} times", "a newer QEMU may help")
    for note in found.get("notes") or []:
        yield ok("note", note)
    for other in others:
        yield warning("other machines", f"{other} is broken", f"wherry doctor {other}")


def _keys(directory: MachineDir) -> Iterator[Check]:
    """The private keys are there, and no other user can read them."""
    if not directory.exists():
        return
    keys = [directory.client_key, directory.host_key]
    lost = [key.name for key in keys if not key.exists()]
    if lost:
        gone = f"{' and '.join(lost)} {'is' if len(lost) == 1 else 'are'} gone"
        yield failure("keys", gone, f"wherry repair {directory.name}")
        return
    exposed = [path for path in (directory.path, *keys) if not host.current().is_private(path)]
    if exposed:
        paths = " ".join(str(path) for path in exposed)
        yield failure("keys", f"other users can read {paths}, or it is not yours", host.current().close_hint(exposed))
    else:
        yield ok("keys", "there, and yours alone")


def _shares(directory: MachineDir, config: MachineConfig | None) -> Iterator[Check]:
    """Each shared folder is there, and the machine has it."""
    if config is None:
        return
    found = shares.listing(directory.name)
    wherry = "wherry" if directory.name == "default" else f"wherry --machine {directory.name}"
    bad = 0
    for share in found:
        path = share["path"]
        if not os.path.lexists(path):
            step = f"mkdir -p {shlex.quote(path)}" if share["id"] == "home" else f"{wherry} share remove {shlex.quote(path)}"
            yield warning("shares", f"{path} is not there any more", step)
        elif share["state"] == "failed":
            yield warning("shares", f"the machine does not have {path}: {share['detail']}", f"{wherry} logs shares")
        else:
            continue
        bad += 1
    for folder in host.current().guarded_folders():
        kept = host.current().withheld(folder) if any(sharing.is_within(folder, share["path"]) for share in found) else None
        if kept:
            yield warning("shares", f"{kept[0]}, and so from containers", kept[1])
            bad += 1
    hidden = sum(share["hidden"] for share in found)
    if not bad:
        private = f", {hidden} private {'place' if hidden == 1 else 'places'} hidden" if hidden else ""
        yield ok("shares", f"{', '.join(share['path'] for share in found) or 'no folder of this computer'}{private}")
