"""What can be wrong with a machine's folder, one check each: what was found, and what was done about it. The data stays.

Each check gets an `Order` and yields `Step`s; with `dry_run` nothing is changed. None of them runs while the machine does, but
those of `files_that_may_change_any_time`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher import configfile, files, host, saved, store
from launcher.errors import Damaged, IsoProblem, Refused, WherryError
from launcher.machine import salvage
from launcher.report import Reporter
from launcher.state import State
from launcher.store import MachineDir


@dataclass(frozen=True)
class Step:
    """One thing that was wrong."""

    found: str
    done: str  # what was done, or would be; where nothing could be done, what the user can do
    mended: bool

    def line(self) -> str:
        return f"{self.found}: {self.done}"


@dataclass(frozen=True)
class Order:
    """What is to be mended, and how far one may go."""

    directory: MachineDir
    report: Reporter
    dry_run: bool = False
    # Asked before what cannot be taken back; False when there is nobody to ask.
    agree: Callable[[str], bool] = lambda question: False  # noqa: ARG005


def config(order: Order) -> Iterator[Step]:
    """machine.toml: rebuilt when it is lost or cannot be read; what was there is kept beside it."""
    directory = order.directory
    try:
        directory.read_config()
        return
    except Refused:
        raise
    except WherryError as error:
        found = error.message.rstrip(".")
    try:
        wanted, sources = salvage.rebuilt(directory, order.report)
    except IsoProblem as error:
        yield Step(found, f"not made anew: {error.message} {error.hint or ''}".rstrip(), mended=False)
        return
    damaged = directory.config_file
    aside = damaged.with_name(f"{damaged.name}.damaged")
    kept = f"; the damaged one is {aside.name}" if damaged.exists() else ""
    if not order.dry_run:
        if damaged.exists():  # a copy: should we be killed now, it can still be read
            files.write_private(aside, damaged.read_bytes())
        files.write_private(damaged, configfile.rewritten(None, wanted).encode())
    yield Step(found, f"made anew from {', '.join(sources)}{kept}", mended=True)


def state(order: Order) -> Iterator[Step]:
    """state.json: it tells what runs; of a machine that is off there is nothing to keep."""
    directory = order.directory
    try:
        directory.read_state()
    except Damaged as error:
        if not order.dry_run:
            directory.write_state(State())
        yield Step(error.message.rstrip("."), "written anew", mended=True)


def keys(order: Order) -> Iterator[Step]:
    """The keys travel to the guest at every start: new ones are as good as the old ones."""
    from launcher.ssh import keys as ssh_keys

    wrong = ssh_keys.damaged_keys(order.directory)
    if wrong:
        if not order.dry_run:
            ssh_keys.renew_keys(order.directory)
        names = " and ".join(f"the key {name}" for name in wrong)
        yield Step(f"{names} {'is' if len(wrong) == 1 else 'are'} lost or damaged", "made anew", mended=True)


def iso(order: Order) -> Iterator[Step]:
    """The ISO that the machine starts with."""
    from launcher.images import by_sha

    try:
        wanted = order.directory.read_config()
    except WherryError:  # with a dry run
        return
    try:
        by_sha(wanted.iso)
        return
    except IsoProblem as error:
        found, hint = error.message.rstrip("."), error.hint
    if order.dry_run:
        yield Step(found, "would be fetched or imported again, where this wherry knows it", mended=True)
        return
    try:
        salvage.iso_again(wanted, order.report)
        yield Step(found, "in the cache again", mended=True)
    except IsoProblem as error:
        name = order.directory.name
        yield Step(found, f"{hint or error.hint}; or take this release's: wherry upgrade {name}", mended=False)


def sockets(order: Order) -> Iterator[Step]:
    """Sockets of a keeper and a QEMU that are gone."""
    directory, endpoints = order.directory, host.current().endpoints()
    left = [path for path in (directory.control_socket, directory.qmp_socket, directory.serial_socket) if endpoints.left(path)]
    if left:
        if not order.dry_run:
            directory.remove_sockets()
        yield Step(f"{', '.join(path.name for path in left)} of a process that is gone", "removed", mended=True)


def leftovers(order: Order) -> Iterator[Step]:
    """Half-written files and half-made folders of commands that were killed."""
    directory = order.directory
    for folder in (directory.path, directory.seed_dir, store.home() / "machines"):
        for path in files.leftovers(folder) if order.dry_run else files.sweep(folder):
            yield Step(f"{path}, left by a command that was killed", "removed", mended=True)


def memory(order: Order) -> Iterator[Step]:
    """The memory of a suspended machine: given up only when that is agreed to, since what runs in it is lost with it."""
    directory, name = order.directory, order.directory.name
    if not order.dry_run:
        saved.settle(directory)
    if not saved.is_suspended(directory):
        return
    try:
        found = saved.read(directory)
        size = directory.memory_file.stat().st_size
        wrong = "" if size == found.memory else f"{directory.memory_file} is damaged"
        wrong = wrong if saved.stamp(directory, suspended=True) == found.disk else "the disk was changed since it was suspended"
    except OSError as error:
        wrong = f"{directory.memory_file} cannot be read: {error.strerror}"
    except Damaged as error:
        wrong = error.message.rstrip(".")
    if not wrong:
        return
    question = f"{wrong}. Give the saved memory up, with what ran in it? The disk stays, as after a power cut."
    if order.dry_run or not order.agree(question):
        yield Step(wrong, f"left as it is; to give the saved memory up: wherry up --cold {name}", mended=False)
        return
    saved.discard(directory)
    yield Step(wrong, "the saved memory was given up; the disk is there", mended=True)


def disk(order: Order) -> Iterator[Step]:
    """The qcow2 file: leaks are given back, more than that is mended only when that is agreed to, after a copy. That of a
    suspended machine is left alone: any change would part it from its memory."""
    from launcher import qcow
    from launcher.qemu import probe

    if saved.is_suspended(order.directory):
        return
    path, name = order.directory.data_disk, order.directory.name
    if not path.exists():
        yield Step(
            f"{path} is gone, and with it images, containers and volumes",
            f"put it back; or, for an empty one: wherry repair --new-disk {name}",
            mended=False,
        )
        return
    tool = probe.find_img()
    try:
        tables = qcow.check(path, tool)
    except WherryError as error:
        reason = f" ({error.detail.splitlines()[-1]})" if error.detail else ""
        yield Step(f"{error.message.rstrip('.')}{reason}", "left as it is; put a backup in its place", mended=False)
        return
    if tables.corruptions:
        yield _corrupt(order, tables.corruptions, path, tool)
    elif tables.leaks:
        left = tables if order.dry_run else qcow.mend_leaks(path, tool)
        yield Step(f"{tables.leaks} clusters of the disk are used by nothing", "given back", mended=order.dry_run or left.whole)


def _corrupt(order: Order, count: int, path: Path, tool: Path) -> Step:
    from launcher import qcow

    found = f"the tables of {path.name} contradict each other in {count} places"
    question = f"{found}. Mend them, after a copy of the disk was made beside it?"
    if order.dry_run or not order.agree(question):
        return Step(
            found, f"left as they are; to mend them, after a copy: wherry repair --yes {order.directory.name}", mended=False
        )
    left, copy = qcow.mend_all(path, tool)
    return Step(found, f"mended; what it was before is {copy.name}", mended=not left.corruptions)
