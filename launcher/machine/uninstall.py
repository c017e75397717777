"""Leaving: what wherry put outside of its own folders is taken back. Machines go only when their user says so, one by one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher import host, store
from launcher.dockerhome import DockerHome
from launcher.errors import WherryError, of_system
from launcher.machine import autostart, context, inspect, isos, links
from launcher.machine.stop import delete as delete_machine
from launcher.machine.stop import running, stop
from launcher.report import Reporter
from launcher.store import MachineDir

# What tells a machine that is as it should be; any other is for its user to look at first.
_WHOLE = ("stopped", "suspended")


@dataclass
class Undone:
    """What was taken back, and what could not be, each a line that says why and what to do."""

    stopped: list[str] = field(default_factory=list)
    contexts: list[str] = field(default_factory=list)
    current: str = ""  # docker's context now
    links: list[str] = field(default_factory=list)
    autostart: list[str] = field(default_factory=list)  # machines that started at login
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def going_on(self, what: str) -> Iterator[None]:
        """One thing that fails keeps nothing else from being undone."""
        try:
            yield
        except (WherryError, OSError) as error:
            known = error if isinstance(error, WherryError) else of_system(error)
            self.problems.append(f"{what}: {known.message}" + (f"   {known.hint}" if known.hint else ""))


def live() -> list[str]:
    """The machines that run, are starting, or whose keeper waits for somebody to need them."""
    found = []
    for directory in store.machines():
        try:
            alive = running(directory)
        except WherryError:  # a keeper that does not answer is one
            alive = True
        if alive:
            found.append(directory.name)
    return found


def undo(report: Reporter) -> Undone:
    """Stop what runs, then take back contexts, links, login items and sockets. Raises nothing: see `problems`."""
    done = Undone()
    for name in live():
        with done.going_on(f"machine {name}"):
            stop(name, False, report)
            done.stopped.append(name)
    with done.going_on("docker's contexts"):
        done.contexts, others = context.forget_all()
        done.current = DockerHome().current
        done.problems += [_other(name, folder) for name, folder in others.items()]
    for kind in ("docker", "socket"):
        with done.going_on(f"link {kind}"):
            done.links += [item.place for item in links.unlink(kind)]
    with done.going_on("autostart"):
        done.autostart = autostart.forget_all()
    for directory in store.machines():
        with done.going_on(f"sockets of {directory.name}"):
            _remove_sockets(directory)
    with suppress(OSError):  # not there, or a machine of another home has its sockets in it
        host.current().run_base().rmdir()
    return done


def _other(name: str, folder: str) -> str:
    home = Path(folder).parent.parent
    return f"docker context {name} is of a machine in {home}   WHERRY_HOME={home} wherry uninstall"


def _remove_sockets(directory: MachineDir) -> None:
    if not running(directory):
        directory.remove_sockets()


def machines() -> list[dict[str, Any]]:
    """All of them, as `list` has them, the damaged ones too."""
    return inspect.list_machines()


def is_whole(found: dict[str, Any]) -> bool:
    """Whether it may be deleted for the asking. What is damaged, or a newer wherry's, is never deleted on a guess."""
    return found["status"] in _WHOLE


def clear(report: Reporter) -> list[Path]:
    """When no machine is left: remove ISOs, notes and the empty folders. What stays, since it is not known to be ours."""
    folders = [folder for folder in (store.home(), store.cache_dir()) if folder.exists()]
    if store.machines():
        return folders
    store.sweep()
    isos.remove_all(report)
    cache = store.cache_dir()
    for file in (cache / "qemu.json", cache / "iso.lock", store.home() / "docker-client.json"):
        file.unlink(missing_ok=True)
    shutil.rmtree(cache / "texts", ignore_errors=True)
    (store.home() / "machines" / ".create.lock").unlink(missing_ok=True)
    for folder in (cache / "iso", cache, store.home() / "machines", store.home()):
        with suppress(OSError):
            folder.rmdir()
    return [folder for folder in folders if folder.exists()]


Asked = Callable[[dict[str, Any]], bool]


def delete(asked: Asked, report: Reporter) -> list[str]:
    """Delete each machine of which `asked` says so; their names."""
    gone = []
    for found in machines():
        if is_whole(found) and asked(found):
            delete_machine(found["name"], False, report)
            gone.append(found["name"])
    return gone
