"""repair: what `broken` in list points to. Mends what can be mended, keeps the data, says what it did, one line each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from launcher import host, identity, readiness, store
from launcher.errors import Damaged, NoProgress, NoSuchMachine, WherryError
from launcher.machine import inspect, keepers, mending, succession
from launcher.machine.disk import repair_disk
from launcher.machine.mending import Order, Step
from launcher.machine.run import follow_start, start_keeper
from launcher.machine.stop import running
from launcher.report import Reporter
from launcher.store import MachineDir


@dataclass(frozen=True)
class Repair:
    """How it went."""

    steps: list[Step] = field(default_factory=list)
    status: str = ""  # as `status` says it afterwards

    @property
    def whole(self) -> bool:
        return self.status != "broken" and all(step.mended for step in self.steps)


def repair(
    name: str, report: Reporter, *, dry_run: bool = False, agree: Callable[[str], bool] = lambda _: False
) -> Repair:  # fmt: skip
    """Mend the machine. `agree` is asked before what cannot be taken back. Raises NoSuchMachine, and Refused for files that a
    newer wherry wrote."""
    directory = store.machine(name)
    if not directory.exists():
        raise NoSuchMachine(f"there is no machine {name!r}.", hint="wherry list")
    order = Order(directory, report, dry_run, agree)
    # Nobody starts it while we look, and nobody else repairs it.
    lock = None if dry_run else host.current().lock(directory.start_lock_file, wait=True)
    try:
        steps = list(_steps(order))
    finally:
        if lock is not None:
            os.close(lock)
    if all(step.mended for step in steps):
        steps += _file_system(order)
    return Repair(steps, str(inspect.status(name)["status"]))


def _steps(order: Order) -> Iterator[Step]:
    directory = order.directory
    yield from _silent_keeper(order)
    yield from mending.config(order)
    if keepers.status(directory) is not None:
        return  # it runs, and what it needs is in its hands
    if not order.dry_run:
        keepers.wait_gone(directory, alone=True)
    if directory.qemu_runs():
        yield from _orphan(order)
        return
    for check in (mending.state, mending.keys, mending.iso, mending.memory, mending.disk, mending.sockets, mending.leftovers):
        yield from check(order)


def _file_system(order: Order) -> Iterator[Step]:
    """What is inside of the disk, when the last start found it damaged: e2fsck in the guest mends it."""
    directory = order.directory
    if running(directory):
        return
    try:
        found = str(directory.read_state().last_error.get("message", "")).rstrip(".")
    except Damaged:  # with a dry run it is as it was
        return
    if not found.startswith(readiness.DAMAGED_WORDS):
        return
    if order.dry_run:
        yield Step(found, "e2fsck would mend it, after the disk as it is was kept inside of data.qcow2", mended=True)
        return
    try:
        notes = repair_disk(directory.name, order.report).notes
    except WherryError as error:
        yield Step(found, " ".join(filter(None, [error.message, error.hint])), mended=False)
        return
    yield Step(found, "; ".join(notes) or "mended by e2fsck", mended=True)


def _silent_keeper(order: Order) -> Iterator[Step]:
    """A keeper that is stopped or hangs. QEMU and the containers go on without it."""
    directory = order.directory
    try:
        keepers.status(directory)
        return
    except NoProgress as error:
        found = error.message.rstrip(".")
    if not order.dry_run:
        try:
            succession.kill_keeper(directory, {"keeper_pid": directory.read_state().keeper_pid})
        except WherryError as error:
            yield Step(found, error.message, mended=False)
            return
    yield Step(found, "ended; QEMU and the containers go on", mended=True)


def _orphan(order: Order) -> Iterator[Step]:
    """A QEMU without a keeper: one of ours gets a new one, anything else is left alone."""
    directory = order.directory
    found = identity.qemus(directory.path)
    if len(found) != 1:
        lock = directory.qemu_lock_file
        held = [f"{one.pid} {one.argv[0]}" for one in found] or identity.holders(lock) or ["unknown"]
        yield Step(
            f"{lock} is held by processes that wherry cannot tell apart or did not start (pid {', '.join(held)})",
            f"left alone; end them, then {directory.repair_hint}",
            mended=False,
        )
        return
    said = f"QEMU (pid {found[0].pid}) runs without a keeper"
    if order.dry_run:
        yield Step(said, "a new keeper would take it over", mended=True)
        return
    yield _succeed(order, said)


def _succeed(order: Order, said: str) -> Step:
    directory = order.directory
    was_running = _was_running(directory)
    try:
        start_keeper(directory, "" if was_running else "stop")
        if not was_running:
            keepers.wait_gone(directory, alone=True)
            return Step(f"{said}, from a start that was cut short", "ended", mended=True)
        follow_start(directory, order.report)
    except WherryError as error:
        return Step(said, error.message, mended=False)
    return Step(said, "a new keeper took over, containers went on", mended=True)


def _was_running(directory: MachineDir) -> bool:
    try:
        state = directory.read_state()
    except Damaged:
        return True
    return state.status == "running" or not state.token
