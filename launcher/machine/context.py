"""The docker context of a machine: any docker client of this computer reaches its engine by it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from launcher import host, store
from launcher.dockerhome import DEFAULT, Context, DockerHome
from launcher.errors import NoSuchMachine, NotRunning, Refused, WherryError, of_system
from launcher.store import MachineDir

_OURS: Final = "wherry"  # in the context: {"machine": its folder, "before": the context that was current}
_ANSWERS_WITHIN: Final = 2.0


@dataclass(frozen=True)
class Offer:
    """What `up` did about docker's contexts, and what keeps docker from reaching the machine."""

    name: str
    current: bool
    before: str | None = None  # what was current until now, when that changed
    advice: tuple[str, ...] = ()


def context_name(name: str) -> str:
    return "wherry" if name == "default" else f"wherry-{name}"


def docker_host(name: str) -> str:
    """The address of the machine's engine for DOCKER_HOST. Raises NotRunning unless it runs or is starting."""
    from launcher.machine import inspect

    directory = store.machine(name)
    if inspect.status(name)["status"] not in ("running", "starting", "paused"):
        raise NotRunning(f"machine {name!r} is not running.", hint=f"wherry up{_argument(name)}")
    return _address(directory)


def create(name: str) -> str:
    """Write the context, and return its name. Raises Refused when there is one of that name that is not this machine's."""
    directory = _existing(name)
    _write(DockerHome(), directory)
    directory.context_declined.unlink(missing_ok=True)
    return context_name(name)


def use(name: str) -> str | None:
    """Make the context current, write it when needed; the one before, None when it was current already."""
    create(name)
    return _make_current(DockerHome(), store.machine(name))


def remove(name: str) -> tuple[bool, str]:
    """Remove the context; whether there was one, and which is current now. `up` will make none from now on."""
    directory = _existing(name)
    removed = forget(directory)
    directory.context_declined.touch(mode=0o600)
    return removed, DockerHome().current


def forget(directory: MachineDir) -> bool:
    """Remove the machine's context if there is one, and make current what was before it."""
    home, name = DockerHome(), context_name(directory.name)
    context = home.context(name)
    if context is None or not _is_of(context, directory):
        return False
    _drop(home, context)
    return True


def forget_all() -> tuple[list[str], dict[str, str]]:
    """Remove every context that leads to a machine of this home, or to one that is gone: their names; and make current what was
    before all of them. And those that are left, since they lead to machines of another home: name -> the machine's folder."""
    home = DockerHome()
    machines = {name: Path(folder) for name in home.names() if (folder := _folder_of(home, name))}
    others = {name: str(path) for name, path in machines.items() if path.exists() and path.parent != store.home() / "machines"}
    ours = [name for name in machines if name not in others]
    left = set(ours)
    while left:
        # The current one first: what was before it may be another of ours, which knows what was before that.
        name = home.current if home.current in left else min(left)
        context = home.context(name)
        if context is not None:
            _drop(home, context)
        left.discard(name)
    return ours, others


def _folder_of(home: DockerHome, name: str) -> str:
    context = home.context(name)
    return _mark(context).get("machine", "") if context is not None else ""


def _drop(home: DockerHome, context: Context) -> None:
    if home.current == context.name:
        before = _mark(context).get("before", DEFAULT)
        home.make_current(before if home.exists(before) else DEFAULT)
    home.remove(context.name)


def offer(name: str) -> Offer:
    """After a start: the context is there, and current when docker had nothing else to go to. Raises nothing."""
    directory, home, wanted = store.machine(name), DockerHome(), context_name(name)
    try:
        before = None
        if not directory.context_declined.exists():
            _write(home, directory)
            if home.current == DEFAULT and _nothing_else():
                before = _make_current(home, directory)
        return Offer(wanted, home.current == wanted, before, tuple(_advice(home, wanted)))
    except (WherryError, OSError) as error:
        known = error if isinstance(error, WherryError) else of_system(error)
        return Offer(wanted, False, advice=(f"docker has no context for it: {known.message}   {known.hint or ''}".rstrip(),))


def _existing(name: str) -> MachineDir:
    directory = store.machine(name)
    if not directory.exists():
        raise NoSuchMachine(f"there is no machine {name!r}.", hint=f"wherry up{_argument(name)}")
    return directory


def _argument(name: str) -> str:
    return "" if name == "default" else f" {name}"


def _address(directory: MachineDir) -> str:
    return host.current().endpoints().address(directory.engine_socket)


def _mark(context: Context) -> dict[str, str]:
    mark = context.extra.get(_OURS)
    return {key: value for key, value in mark.items() if isinstance(value, str)} if isinstance(mark, dict) else {}


def _is_of(context: Context, directory: MachineDir) -> bool:
    return _mark(context).get("machine") == str(directory.path)


def _write(home: DockerHome, directory: MachineDir) -> None:
    name, address = context_name(directory.name), _address(directory)
    found = home.context(name)
    if found is not None and not _is_of(found, directory):
        other = _mark(found).get("machine")
        if other is None or Path(other).exists():
            whose = f"of the machine in {other}" if other else "that wherry did not make"
            raise Refused(f"there is a docker context {name!r} {whose}.", hint=f"docker context rm {name}")
    mark = {**(_mark(found) if found else {}), "machine": str(directory.path)}
    wanted = Context(name, address, f"wherry machine {directory.name}", {_OURS: mark})
    if wanted != found:
        home.write(wanted)


def _make_current(home: DockerHome, directory: MachineDir) -> str | None:
    name, before = context_name(directory.name), home.current
    if before == name:
        return None
    context = home.context(name)
    assert context is not None
    home.write(replace(context, extra={_OURS: {**_mark(context), "before": before}}))
    home.make_current(name)
    return before


def _nothing_else() -> bool:
    """Whether docker, as it is, would reach no engine."""
    if os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT"):
        return False
    return not _listens(host.current().docker_socket())


def _listens(path: Path) -> bool:
    """Whether somebody answers there; one that only others may open is somebody."""
    try:
        host.current().endpoints().connect(path, _ANSWERS_WITHIN).close()
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _advice(home: DockerHome, wanted: str) -> list[str]:
    """One line, with its fix, for each thing that leads docker elsewhere or nowhere."""
    lines = []
    address, current = os.environ.get("DOCKER_HOST", ""), os.environ.get("DOCKER_CONTEXT") or home.current
    ours = home.context(wanted)
    if address and (ours is None or address != ours.host):
        lines.append(f"DOCKER_HOST leads docker in this terminal to {address}   unset DOCKER_HOST")
    elif not address and current != wanted and not home.exists(current):
        lines.append(f"docker's current context {current!r} does not exist   {_choose(wanted)}")
    elif not address and current != wanted and _is_gone(home.context(current)):
        lines.append(f"nothing answers in docker's current context {current!r}   {_choose(wanted)}")
    return lines + home.advice()


def _choose(wanted: str) -> str:
    return "unset DOCKER_CONTEXT" if os.environ.get("DOCKER_CONTEXT") else f"docker context use {wanted}"


def _is_gone(context: Context | None) -> bool:
    return context is not None and context.host.startswith("unix://") and not _listens(Path(context.host[len("unix://") :]))
