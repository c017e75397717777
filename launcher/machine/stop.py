"""stop and delete."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from launcher import control, saved, store
from launcher.config import format_size
from launcher.errors import ConnectionLost, NoSuchMachine, NotRunning, Refused, WherryError
from launcher.machine import keepers
from launcher.report import Reporter
from launcher.store import MachineDir


def stop(name: str, force: bool, report: Reporter) -> bool:
    """Stop the machine and wait until it is off; False when it did not run, or is suspended now. `force` ends QEMU without
    asking the guest."""
    directory = _existing(name)
    if not _stop_keeper(directory, force, report):
        if not directory.qemu_runs():
            return False
        # Its keeper is gone, QEMU is not: a new keeper takes over and stops it in the usual way.
        from launcher.machine.run import ensure_keeper

        ensure_keeper(directory, report, only_stop=True)
        _stop_keeper(directory, force, report)
    keepers.wait_gone(directory)
    return not saved.is_suspended(directory)  # it slept by itself, or was being saved: it stays that, and nothing wakes it


def _stop_keeper(directory: MachineDir, force: bool, report: Reporter) -> bool:
    """Ask the keeper; False when there is none."""
    try:
        framed = control.request(directory.control_socket, "stop", force=force)
    except NotRunning:
        return False
    try:
        for event in control.events(framed):
            _report(event, report)
    except ConnectionLost:
        if directory.qemu_runs():
            raise
    finally:
        framed.close()
    return True


def _report(event: dict[str, Any], report: Reporter) -> None:
    if event.get("event") == "stop":
        report.step("stop", event["step"])
    elif event.get("event") == "note":
        report.note(event["text"])
    elif event.get("event") == "warning":
        report.warn(event["text"])


def _existing(name: str) -> MachineDir:
    directory = store.machine(name)
    if not directory.exists():
        raise NoSuchMachine(f"there is no machine {name!r}.", hint="wherry list")
    return directory


def what_delete_removes(name: str) -> list[str]:
    """Lines that name what goes; for the question."""
    directory = _existing(name)
    lines = [f"machine   {name}   in {directory.path}"]
    try:
        wanted = directory.read_config()
        lines.append(f"          {wanted.arch}, {wanted.cpus} CPUs, {format_size(wanted.memory)} memory")
    except WherryError as error:
        lines.append(f"          broken: {error.message}")
    from launcher.machine import wayback

    lines += [
        f"copy      {copy}, an earlier or later state of the disk ({size / 1e9:.1f} GB)"
        for copy, size in wayback.copies(directory)
    ]
    if saved.is_suspended(directory):
        lines.append("memory    of the suspended machine, with what runs in it")
    lines.append(f"disk      all images, containers, volumes and logins in it ({_used(directory.path)} on this computer)")
    return lines


def _used(path: Path) -> str:
    return f"{store.MachineDir(path.name, path).disk_used() / 1e9:.1f} GB"


def delete(name: str, force: bool, report: Reporter) -> None:
    """Delete the machine with all that is on its disk; the caller has asked. Raises Refused while it runs, unless `force`."""
    store.sweep()
    directory = _existing(name)
    if running(directory) and keepers.status(directory) == "suspended":
        stop(name, True, report)  # nothing runs but the keeper, which waits for somebody to need the machine
    if running(directory):
        if not force:
            raise Refused(f"machine {name!r} is running.", hint=f"wherry stop {name}, or: wherry delete --force {name}")
        stop(name, True, report)
    from launcher.machine import autostart, context, links

    with contextlib.suppress(WherryError, OSError):
        autostart.disable(directory)
    with contextlib.suppress(WherryError, OSError):  # docker's files may be damaged; that is no reason to keep a machine
        context.forget(directory)
    with contextlib.suppress(WherryError, OSError):
        links.forget(directory)
    store.remove(directory)


def running(directory: MachineDir) -> bool:
    """Whether a keeper or a QEMU of the machine lives."""
    try:
        control.connect(directory.control_socket).close()
    except NotRunning:
        return directory.qemu_runs()
    return True
