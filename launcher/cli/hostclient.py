"""The docker client of this computer, for `wherry docker`, `run` and `compose`: found, judged, put in our place.

On the way of every proxied command: nothing slow to import, and no process but for a client that was not seen before.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from launcher import host
from launcher.console import Console
from launcher.errors import MissingOnHost, Usage, WherryError

AUTO: Final = "auto"
VARIABLE: Final = "WHERRY_CLIENT"
# Docker 25 speaks version 1.44 of the API, the oldest that engines from 29 on take; BuildKit is the default since 23.
OLDEST: Final = 25
# They lead docker elsewhere, or have it speak TLS to a socket.
ELSEWHERE: Final = ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_TLS", "DOCKER_API_VERSION")
# What a build needs that the client does not have in itself.
_PLUGINS: Final = {"compose": "compose", "build": "buildx", "buildx": "buildx", "builder": "buildx"}
_HEAD: Final = 4096


class Found(NamedTuple):
    """A client that can be used, or why none can."""

    program: Path | None
    why: str = ""
    old: bool = False


def _debug(text: str, *values: object) -> None:
    """For --debug, which has loaded logging; everybody else does without."""
    if "logging" in sys.modules:
        sys.modules["logging"].getLogger("wherry.client").debug(text, *values)


def choice(name: str, own: Mapping[str, str] = os.environ) -> str:
    """auto, host or guest: the variable, else the machine's own setting. Raises Usage for anything else."""
    chosen = own.get(VARIABLE) or _configured(name)
    if chosen == AUTO:  # as nearly always: what reads settings is not needed then
        return chosen
    from launcher.config import CLIENTS

    if chosen not in CLIENTS:
        raise Usage(f"{VARIABLE}={chosen}: {', '.join(CLIENTS[:-1])} or {CLIENTS[-1]}.")
    return chosen


def _configured(name: str) -> str:
    from launcher import store

    try:
        text = store.machine(name).config_file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return AUTO  # no machine yet, or one that says itself what is wrong
    # Not worth a reader of TOML on every call: the key is at the top, before any table.
    match = re.search(r"""^\s*client\s*=\s*["'](\w+)["']""", text.split("\n[", 1)[0], re.MULTILINE)
    return match[1] if match else AUTO


def select(name: str, command: str, console: Console) -> Path | None:
    """The client here for that command of docker's; None: the one in the guest.

    Raises MissingOnHost when the one here is asked for and there is none that can be used.
    """
    chosen = choice(name)
    if chosen == "guest":
        _debug("client: the guest's, by setting")
        return None
    found = find(command)
    if found.program is not None:
        _debug("client: %s", found.program)
    elif chosen == "host":
        raise MissingOnHost(f"the docker client of this computer cannot be used: {found.why}.", hint=f"{VARIABLE}=guest")
    else:
        _debug("client: the guest's (%s)", found.why)
        if found.old:
            console.story(f"the client in the machine is used: {found.why}   {VARIABLE}=guest")
    return found.program


def find(command: str, own: Mapping[str, str] = os.environ) -> Found:
    """The first docker on PATH that is Docker's own client and has what the command needs."""
    program = next(_candidates(own), None)
    if program is None:
        return Found(None, "there is no docker on PATH")
    version = _version(program)
    if not version:
        return Found(None, f"{program} is no client of Docker's")
    if version < OLDEST:
        return Found(None, f"{program} is Docker {version}, the engine wants {OLDEST} at least", old=True)
    plugin = _PLUGINS.get(command)
    if plugin is not None and not _has_plugin(plugin, own):
        return Found(None, f"{program} has no {plugin} plugin")
    return Found(program)


def _candidates(own: Mapping[str, str]) -> Iterator[Path]:
    """Programs called docker, without our own link and without podman's."""
    for folder in own.get("PATH", os.defpath).split(os.pathsep):
        program = Path(folder or ".") / f"docker{host.current().PROGRAM_SUFFIX}"
        if not os.access(program, os.X_OK) or not program.is_file():
            continue
        try:
            with program.open("rb") as file:
                head = file.read(_HEAD)
        except OSError:
            continue
        if program.resolve().stem == "wherry" or (head[:2] == b"#!" and (b"wherry link" in head or b"podman" in head)):
            _debug("%s is not Docker's client", program)
            continue
        yield program


def _version(program: Path) -> int:
    """Its major version; asked once for each program and time. 0 when it does not say."""
    from launcher import store

    about = program.stat()
    stamp = [str(program), about.st_size, about.st_mtime_ns]
    note = store.home() / "docker-client.json"
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["of"] == stamp:
            return int(kept["version"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return _ask_version(program, stamp, note)


def _ask_version(program: Path, stamp: list[object], note: Path) -> int:
    from launcher import files, proc

    try:
        match = re.search(r"Docker version (\d+)\.", proc.run([program, "--version"], timeout=20))
    except WherryError as error:
        _debug("%s: %s", program, error.message)
        return 0
    version = int(match[1]) if match else 0
    try:
        files.write_private(note, json.dumps({"of": stamp, "version": version}).encode())
    except OSError:
        pass  # it is asked again
    return version


def _has_plugin(name: str, own: Mapping[str, str]) -> bool:
    """Whether docker would find it: its own folder, those of config.json, the system's (docker/cli, cli-plugins/manager)."""
    home = Path(own.get("DOCKER_CONFIG") or Path(host.current().home(), ".docker"))
    folders = [home / "cli-plugins", *host.current().docker_plugin_folders()]
    try:
        extra = json.loads((home / "config.json").read_text(encoding="utf-8")).get("cliPluginsExtraDirs")
        folders += [Path(folder) for folder in extra or []]
    except (OSError, ValueError, TypeError, AttributeError):
        pass
    return any(os.access(folder / f"docker-{name}{host.current().PROGRAM_SUFFIX}", os.X_OK) for folder in folders)


def environment(address: str, own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's own, led to the machine."""
    return {**{name: value for name, value in own.items() if name not in ELSEWHERE}, "DOCKER_HOST": address}


def advice(own: Mapping[str, str] = os.environ) -> list[str]:
    """What docker's own settings name and this computer does not have: every pull would fail with less to say."""
    config = Path(own.get("DOCKER_CONFIG") or Path(host.current().home(), ".docker")) / "config.json"
    try:
        if '"cred' not in config.read_text(encoding="utf-8"):
            return []
    except (OSError, ValueError):
        return []
    from launcher.dockerhome import DockerHome

    return DockerHome(config.parent).advice()


def become(program: Path, words: Sequence[str], address: str) -> int:
    """Run docker in our place, with the caller's terminal, signals and folder; returns only where a system cannot do that."""
    return host.current().become(program, [str(program), *words], environment(address))
