"""The engine's socket; other container engines of this computer: who holds the usual socket, where `docker` without wherry
goes.

Those of others are only looked at, never connected to: a connection would start an engine that waits behind a socket
unit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from launcher import host
from launcher.machine import links
from launcher.machine.checks import Check, failure, ok, warning
from launcher.store import MachineDir

# Sockets of other products, below the user's home.
_SOCKETS: Final = {
    "Docker Desktop": (".docker/run/docker.sock", ".docker/desktop/docker.sock"),
    "Colima": (".colima/*/docker.sock", ".config/colima/*/docker.sock"),
    "Lima": (".lima/*/sock/docker.sock",),
    "Rancher Desktop": (".rd/docker.sock",),
    "OrbStack": (".orbstack/run/docker.sock",),
    "Podman": (".local/share/containers/podman/machine/*/*.sock", ".local/share/containers/podman/machine/*.sock"),
}
_USUAL: Final = Path("/var/run/docker.sock")
_ANSWERS_WITHIN: Final = 5.0


def engines() -> Iterator[Check]:
    yield _usual_socket(_USUAL)
    home = Path(host.current().home())
    found = sorted({name for name, patterns in _SOCKETS.items() for pattern in patterns if any(home.glob(pattern))})
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and (Path(runtime) / "podman" / "podman.sock").exists():
        found = sorted({*found, "Podman"})
    if runtime and (Path(runtime) / "docker.sock").exists():
        found.append("rootless Docker")
    yield ok("other engines", f"sockets of {', '.join(found)}" if found else "none is seen")
    yield _docker_goes()


def ours(directory: MachineDir, found: dict[str, Any]) -> Iterator[Check]:
    """The machine's own socket. It is the keeper that listens: one that was killed leaves the file, behind which nobody is.
    `found`: `inspect.status`."""
    path = directory.engine_socket
    if found["status"] == "none":
        return
    if found.get("socket"):
        if _answers(path):
            yield ok("engine socket", f"{path} is served")
        else:
            yield failure("engine socket", f"nobody listens at {path}", f"wherry restart {directory.name}")
    elif directory.qemu_runs():
        text = f"nobody listens at {path}: docker clients do not reach the containers, which go on"
        yield failure("engine socket", text, str(found.get("next") or f"wherry up {directory.name}"))
    else:
        yield ok("engine socket", f"{path} is there when the machine runs")


def _answers(path: Path) -> bool:
    try:
        host.current().endpoints().connect(path, _ANSWERS_WITHIN).close()
    except OSError:
        return False
    return True


def _usual_socket(path: Path) -> Check:
    if not os.path.lexists(path):
        return ok("docker.sock", f"{path} is free")
    if path.is_symlink():
        target = path.readlink()
        if not path.exists():
            return ok("docker.sock", f"{path} leads to {target}, where nothing is")
        return ok("docker.sock", f"{path} leads to {target}")
    return ok("docker.sock", f"{path} belongs to an engine of this computer")


def _docker_goes() -> Check:
    """Where plain `docker` goes, in the order in which docker's client decides."""
    if os.environ.get("DOCKER_HOST"):
        return ok("docker", f"without wherry it goes to DOCKER_HOST={os.environ['DOCKER_HOST']}")
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path(host.current().home(), ".docker"))
    name = os.environ.get("DOCKER_CONTEXT") or ""
    origin = "DOCKER_CONTEXT" if name else f"{folder / 'config.json'}"
    if not name:
        try:
            name = str(_read(folder / "config.json").get("currentContext") or "")
        except ValueError as error:
            return warning("docker", f"{folder / 'config.json'} cannot be read: {error}", "mend or remove it")
    if name in ("", "default"):
        return ok("docker", f"without wherry it goes to {_USUAL}")
    endpoint = _contexts(folder).get(name)
    if endpoint is None:
        return warning("docker", f"its context {name!r} ({origin}) does not exist", "docker context use default")
    return ok("docker", f"without wherry it goes to the context {name!r} ({origin}): {endpoint}")


def linked() -> Iterator[Check]:
    """What `wherry link` has made."""
    for item in links.listing():
        machine = Path(item.machine)
        if not item.is_ours:
            again = f"wherry link {item.kind} {machine.name}, or wherry unlink {item.kind}"
            what = "belongs to another program now" if os.path.lexists(item.place) else "is gone"
            yield warning("links", f"{item.place}, which was linked to {machine.name}, {what}", again)
        elif not machine.is_dir():
            gone = f"{item.place} leads to the machine {machine.name}, which is gone"
            yield warning("links", gone, f"wherry unlink {item.kind}")
        elif item.kind == "docker":
            yield _linked_docker(item)
        else:
            yield ok("links", f"{item.place} leads to {machine.name}")


def _linked_docker(item: links.Link) -> Check:
    again = f"wherry unlink docker, then wherry link docker {Path(item.machine).name}"
    program, other = links.gone_program(item), links.other_docker()
    if program:
        return warning("links", f"{item.place} starts {program}, which is gone", again)
    if other is not None:
        return warning("links", f"{item.place} is wherry's, and {other} is on PATH too", "wherry unlink docker")
    return ok("links", f"{item.place} is wherry's, for {Path(item.machine).name}")


def _contexts(folder: Path) -> dict[str, str]:
    """Name and endpoint of every context (docker/cli, cli/context/store: meta/SHA256/meta.json)."""
    found = {}
    for file in (folder / "contexts" / "meta").glob("*/meta.json"):
        try:
            meta = _read(file)
            found[str(meta["Name"])] = str(meta["Endpoints"]["docker"].get("Host", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def _read(file: Path) -> dict[str, Any]:
    """Empty when there is none. Raises ValueError for what is no JSON object."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        return {}
    if not isinstance(data, dict):
        raise ValueError("no JSON object")
    return data
