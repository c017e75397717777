"""up, restart, and the way of a proxied command to a running machine."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from launcher import control, host, running, saved, store
from launcher.errors import ConnectionLost, NoSuchMachine, NotRunning, Refused, WherryError, from_json
from launcher.machine import create, keepers, succession
from launcher.machine.create import UpOptions
from launcher.machine.stop import stop
from launcher.report import Reporter, SilentReporter
from launcher.store import MachineDir

KEEPER: Final = "launcher.keeper"
_BEGINS_WITHIN: Final = 60.0  # seconds until a new keeper listens
_TIED: Final = "this terminal lets no program outlive it: the machine ends when it is closed; start it from another one"


@dataclass(frozen=True)
class UpResult:
    """How a start went; seconds since it began."""

    name: str
    created: bool
    already: bool  # it ran before we came
    seconds: float
    accel: str
    engine: str
    emulation_hint: str | None  # told once per machine
    notes: list[str] = field(default_factory=list)
    timeline: list[list[Any]] = field(default_factory=list)


def up(
    name: str, options: UpOptions, report: Reporter, *, disk_action: str = "", cold: bool = False,
    door: Sequence[socket.socket] = (),
) -> UpResult:  # fmt: skip
    """Create the machine if there is none, start or resume it if it does not run, wait until it is ready.

    `disk_action` is one of `seed.ACTIONS`; with one, the start must be ours: Refused when another command began it. `cold`: the
    memory of a suspended machine is given up; the caller has asked. `door`: the engine's socket, which
    listens already, and clients that have come to it.
    """
    directory = store.machine(name)
    created = not directory.exists() and create.make(name, options, report)
    if not created:
        create.change(directory, options, report)
    if cold and keepers.status(directory) == "suspended":
        stop(name, True, report)  # of one that sleeps nothing runs but the keeper
    found = ensure_keeper(directory, report, disk_action=disk_action, cold=cold, door=door)
    if disk_action and found:
        raise Refused(f"another command started machine {name!r}.", hint=f"wherry stop {name}, then again")
    try:
        # The start of a machine that ran before is told again from its beginning, and is no news.
        result = follow_start(directory, SilentReporter() if found == "running" else report)
    except WherryError as error:
        keepers.wait_gone(directory)  # it is about to end; what the user tries next must not meet it
        if isinstance(error, ConnectionLost | NotRunning):  # it ended before it could say why, or before we asked
            _raise_last(directory)
        raise
    from launcher.machine import links

    with contextlib.suppress(WherryError, OSError):  # doctor tells what is wrong with them
        links.renew(directory)
    return UpResult(
        name=name, created=created, already=found is not None, seconds=result["seconds"], accel=result["accel"],
        engine=result["engine"], emulation_hint=_emulation_hint(directory, result["accel"]), notes=result["notes"],
        timeline=result["timeline"],
    )  # fmt: skip


def _raise_last(directory: MachineDir) -> None:
    """Raise what a start came to that was over before anybody could watch it."""
    state = directory.read_state()
    if state.status == "failed" and state.last_error:
        raise from_json(state.last_error)


def restart(name: str, force: bool, report: Reporter) -> UpResult:
    """A suspended machine is resumed first, so that its containers are stopped as they should be; not so by force."""
    directory = store.machine(name)
    if saved.is_suspended(directory):
        if force:
            raise Refused(f"machine {name!r} is suspended; nothing of it runs.", hint=saved.cold_hint(directory))
        up(name, UpOptions(), report)
    stop(name, force, report)
    return up(name, UpOptions(), report)


def control_path(name: str, report: Reporter, create: bool) -> Path:
    """The control socket of a machine that runs or is starting; starts it, and with `create` makes it, when needed."""
    directory = store.machine(name)
    if running.for_us(directory):
        return directory.control_socket
    if not directory.exists() and not create:
        raise NoSuchMachine(f"there is no machine {name!r}.", hint=f"wherry up{'' if name == 'default' else ' ' + name}")
    up(name, UpOptions(), report)
    return directory.control_socket


def follow_start(directory: MachineDir, report: Reporter) -> dict[str, Any]:
    """Report the stages of the start that is under way, or was, and return its result. Raises its error."""
    framed = control.request(directory.control_socket, "watch")
    try:
        for event in control.events(framed):
            if event.get("event") == "stage":
                report.stage(event["name"], event["seconds"])
            elif event.get("event") == "note":
                report.note(event["text"])
            elif event.get("event") == "warning":
                report.warn(event["text"])
        data: dict[str, Any] = event["data"]
        return data
    finally:
        framed.close()


def ensure_keeper(
    directory: MachineDir, report: Reporter, *, only_stop: bool = False, disk_action: str = "", cold: bool = False,
    door: Sequence[socket.socket] = (),
) -> str | None:  # fmt: skip
    """Have a keeper that starts or runs the machine. One command at a time does this.

    Returns what the one that was there does, starting or running, None when it was started here. An older wherry's keeper is
    replaced. With `only_stop` a new one does not start the machine: it takes over a QEMU without a keeper, and ends it. With
    `cold` a saved memory is given up before.
    Raises Refused for a newer one's, and for files that a newer wherry wrote.
    """
    from launcher.machine import wayback

    with starting(directory):
        while (found := succession.serving(directory, report)) is None:
            if not directory.qemu_runs():
                wayback.settle(directory)
                saved.settle(directory)
                if cold:
                    saved.discard(directory)
                elif saved.is_suspended(directory):
                    host.current().read_ahead(directory.memory_file)  # while a keeper starts, and QEMU
            if start_keeper(directory, "stop" if only_stop else disk_action, report, door):
                break
        return found


@contextlib.contextmanager
def starting(directory: MachineDir) -> Iterator[None]:
    """Only one command at a time starts a keeper, or changes what one starts with."""
    lock = host.current().lock(directory.start_lock_file, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def start_keeper(
    directory: MachineDir, action: str = "", report: Reporter | None = None, door: Sequence[socket.socket] = ()
) -> bool:
    """Start a keeper and wait until it listens, at `door` when there is one. The caller holds the lock for it, and there is
    none.

    False when one was on its way that a killed command had started: that one keeps the machine.
    """
    import threading

    from launcher import proc

    host.current().make_private(directory.run_dir.parent)
    handed = [one.fileno() for one in door]
    tied: list[str] = []
    with directory.keeper_log.open("ab") as log:
        keeper = proc.spawn(
            [sys.executable, "-P", "-m", KEEPER, directory.name, *([action] if action else [])],
            cwd=directory.path,
            env=_keeper_environment() | ({"WHERRY_DOOR": ",".join(map(str, handed))} if handed else {}),
            pass_fds=handed,
            stdout=proc.PIPE,
            stderr=log,
            detach=host.current().detach_options(),
            tied=host.current().tied_options(),
            on_tied=lambda: tied.append("refused"),
        )
    for one in door:
        one.close()  # the keeper has it: were we to hold it too, nobody would see when the keeper closes it
    assert keeper.stdout is not None
    # It waits for the end of the one before; should that one hang, nobody waits for ever.
    guard = threading.Timer(_BEGINS_WITHIN, keeper.kill)
    guard.start()
    try:
        with keeper.stdout:
            said = keeper.stdout.readline().decode().strip()
    finally:  # also for who is interrupted: the keeper goes on
        guard.cancel()
    word, _, about = said.partition(" ")
    if word == "served":
        keeper.wait()
        return False
    if word != "ready":
        message = said.removeprefix("error ") or "it ended before it began"
        raise WherryError(f"the machine's keeper did not start: {message}", hint=f"wherry logs keeper {directory.name}")
    if tied or about == "tied":
        (report or SilentReporter()).warn(_TIED)
    # It outlives us; no warning about a child that was not waited for.
    keeper.returncode = 0
    return True


def _keeper_environment() -> dict[str, str]:
    """Ours, with a WHERRY_HOME that does not depend on the working directory and a path on which the package is found."""
    environment = dict(os.environ)
    if environment.get("WHERRY_HOME"):
        environment["WHERRY_HOME"] = str(store.home())
    package_root = str(Path(__file__).parent.parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_root, environment.get("PYTHONPATH", "")]))
    return environment


def _emulation_hint(directory: MachineDir, accel: str) -> str | None:
    """Why it is slow, the first time only."""
    if accel != "tcg" or directory.emulation_told.exists():
        return None
    try:
        directory.emulation_told.touch(mode=0o600)
    except OSError:
        pass  # a full disk: it is told once more
    from launcher.qemu import probe

    config = directory.read_config()
    try:
        program = probe.find(config.arch, config.qemu).program
    except WherryError:  # taken away since: the machine runs all the same
        program = None
    return host.current().accelerator_hint(config.arch, program)
