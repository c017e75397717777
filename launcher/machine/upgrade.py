"""upgrade: a machine moves to another ISO, and back. The data disk is not touched, but for a copy that was wished."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from launcher import control, diskcopy, images, store
from launcher.config import MachineConfig
from launcher.errors import ConnectionLost, IsoProblem, NotRunning, Refused, WherryError
from launcher.images import Iso, IsoSource, pins
from launcher.images.pins import Pin
from launcher.machine import enginedata, keepers, run, succession, wayback
from launcher.machine.enginedata import Change, Step
from launcher.machine.stop import running, stop
from launcher.machine.suspend import refuse_suspended
from launcher.machine.wayback import Record
from launcher.report import Reporter
from launcher.store import MachineDir

# A start that came this far may have had an engine that changed its data.
_WRITE_THE_DISK: Final = {"disk", "engine", "hello", "ready"}


@dataclass(frozen=True)
class Plan:
    """What an upgrade or a way back would do; nothing is done yet but that the ISO is in the cache."""

    name: str
    old: str  # SHA-256 of the ISO that the machine has
    new: Iso
    old_manifest: dict[str, Any]  # empty when that ISO is no longer in the cache
    changes: list[Change]
    steps: list[Step]  # over which there is no way back without a copy; on the way back: that need the copy
    running: bool
    record: Record | None = None  # on the way back: what leads there
    copy_size: int = 0  # bytes that a copy of the disk takes; on the way back: of the copy that there is

    @property
    def nothing(self) -> bool:
        return self.old == self.new.sha256

    @property
    def back(self) -> bool:
        return self.record is not None

    @property
    def copy(self) -> str:
        """On the way back: the copy's name, empty when there is none."""
        return self.record.copy if self.record is not None and self.copy_size else ""


@dataclass(frozen=True)
class Done:
    """How it went."""

    copy: str = ""  # name of the copy that was made
    aside: str = ""  # name under which the newer disk is kept, where the copy was put back
    started: dict[str, Any] = field(default_factory=dict)  # what `follow_start` tells, when the machine ran before


def plan(name: str, iso: IsoSource | Path | None, report: Reporter) -> Plan:
    """The way to this release's ISO, or to `iso`. Raises what the ISO raises, and Refused for a way down over a step of
    engine-data.toml."""
    directory, _ = _asked(name)
    _settled(directory)
    config = directory.read_config()
    transport = images.Transport(proxy=config.network.proxy, ca=config.network.ca)
    new = images.resolve(config.arch, iso, report, transport)
    old = _manifest(config.iso)
    down = enginedata.downward(old, new.manifest, undone=False)
    if down:
        raise Refused(
            f"{name} cannot go down to Docker {enginedata.engine(new.manifest)}: {down[0].what}.",
            hint=f"wherry upgrade --rollback {name}, or another machine: wherry up NAME --iso …",
        )
    return Plan(
        name=name, old=config.iso, new=new, old_manifest=old, changes=enginedata.changes(old, new.manifest),
        steps=enginedata.upward(old, new.manifest), running=running(directory), copy_size=diskcopy.size_of(directory.data_disk),
    )  # fmt: skip


def to_fetch(name: str) -> Pin | None:
    """This release's ISO for the machine, when it would have to be fetched before more is known of it."""
    _, config = _asked(name)
    pin = pins.release().pins.get(config.arch)
    if pin is None:
        return None
    try:
        images.by_sha(pin.sha256)
    except IsoProblem:
        return pin
    return None


def plan_back(name: str) -> Plan:
    """The way back to the ISO before. Raises Refused when there is none."""
    directory, before = _asked(name)
    ended = _settled(directory)
    config, record = directory.read_config(), wayback.read(directory)
    if ended and before.iso != config.iso:  # what is asked for had been begun, and is done now
        new = images.by_sha(config.iso)
        return Plan(name, config.iso, new, new.manifest, [], [], running=False, record=record)
    if record is None:
        raise Refused(
            f"{name} has no ISO to go back to: it was not upgraded, or went back already.", hint=f"wherry status {name}"
        )
    new, old = images.by_sha(record.iso), _manifest(config.iso)
    copy = directory.path / record.copy if record.copy else None
    return Plan(
        name=name, old=config.iso, new=new, old_manifest=old, changes=enginedata.changes(old, new.manifest),
        steps=enginedata.downward(old, new.manifest, undone=True), running=running(directory), record=record,
        copy_size=diskcopy.size_of(copy) if copy is not None and copy.exists() else 0,
    )  # fmt: skip


def _asked(name: str) -> tuple[MachineDir, MachineConfig]:
    """The machine, unless a newer wherry has it."""
    directory = store.machine(name)
    config = directory.read_config()
    directory.check_state()
    refuse_suspended(directory, "it keeps its ISO")
    try:
        succession.refuse_newer(directory, control.status(directory.control_socket))
    except NotRunning:
        pass
    return directory, config


def _settled(directory: MachineDir) -> bool:
    """End a way back that was cut short; whether there was one."""
    if not wayback.cut_short(directory) or running(directory):
        return False
    with run.starting(directory):
        if running(directory):
            return False
        wayback.settle(directory)
    return True


def check(wanted: Plan, copy: bool) -> None:
    """Before anything stops: raises Refused for a way back that the disk does not go without its copy, WherryError for a copy
    that there is no room for."""
    directory = store.machine(wanted.name)
    if not wanted.back and copy:
        diskcopy.check_space(directory.data_disk)
    if wanted.back and wanted.steps and not copy:
        have = f"--copy puts {wanted.copy} back" if wanted.copy else "the disk as it was before is not there"
        raise Refused(
            f"{wanted.name} cannot go back with its data as it is: {wanted.steps[0].what}; {have}.",
            hint=f"wherry upgrade --rollback --copy {wanted.name}" if wanted.copy else f"wherry up {wanted.name}",
        )


def carry_out(wanted: Plan, copy: bool, report: Reporter) -> Done:
    """Stop the machine if it runs, change its ISO, start it again if it ran; with `copy` its disk is copied before, or on the
    way back the copy is put back.

    When it does not become ready it goes back to the ISO before by itself, and WherryError tells so.
    """
    directory = store.machine(wanted.name)
    check(wanted, copy)
    was_running = _stopped(directory, wanted, report)
    try:
        with run.starting(directory):
            _still(directory, wanted)
            done = _change(directory, wanted, copy, report)
            if was_running:
                run.start_keeper(directory)
    except BaseException:
        if was_running:  # it comes back as it was; nobody waits for that here
            with contextlib.suppress(WherryError):
                run.ensure_keeper(directory, report)
        raise
    if not was_running:
        return done
    try:
        return Done(done.copy, done.aside, _follow(directory, report))
    except WherryError as error:
        raise _fall_back(directory, wanted, error, report) from error


def _stopped(directory: MachineDir, wanted: Plan, report: Reporter) -> bool:
    """Stop the machine; whether it ran."""
    return stop(wanted.name, False, report) if running(directory) else False


def _still(directory: MachineDir, wanted: Plan) -> None:
    """Raises Refused when another command was faster."""
    wayback.settle(directory)
    if running(directory):
        raise Refused(f"{wanted.name} was started by another command meanwhile.", hint=f"wherry upgrade {wanted.name}")
    if directory.read_config().iso != wanted.old:
        raise Refused(f"{wanted.name} was given another ISO meanwhile.", hint=f"wherry upgrade --check {wanted.name}")
    images.by_sha(wanted.new.sha256)


def _change(directory: MachineDir, wanted: Plan, copy: bool, report: Reporter) -> Done:
    if wanted.record is not None:
        return Done(aside=wayback.back(directory, wanted.record, put_back=copy))
    name = wayback.make_copy(directory, wanted.old_manifest, wanted.new, report) if copy else ""
    wayback.change(directory, wanted.old_manifest, wanted.new, name)
    return Done(copy=name)


def _follow(directory: MachineDir, report: Reporter) -> dict[str, Any]:
    try:
        return run.follow_start(directory, report)
    except ConnectionLost:  # the keeper was killed: no fault of the ISO's
        run.ensure_keeper(directory, report)
        return run.follow_start(directory, report)


def _fall_back(directory: MachineDir, wanted: Plan, error: WherryError, report: Reporter) -> WherryError:
    """Go back to the ISO before, start it, and return the error that tells so."""
    what = "the ISO before" if wanted.back else "the new ISO"
    keepers.wait_gone(directory)
    state = directory.read_state()
    if state.status == "stopped":  # somebody stopped it: nothing is wrong with the ISO
        return error
    record = wayback.read(directory)
    touched = _WRITE_THE_DISK & {stage for stage, _ in state.timeline}
    steps = enginedata.upward(wanted.old_manifest, wanted.new.manifest) if touched else []
    if wanted.back or record is None or (steps and not record.copy):
        why = f"; it is left there, for {steps[0].what}" if steps else ""
        return WherryError(
            f"{wanted.name} did not become ready with {what}{why}: {error.message}", hint=error.hint, detail=error.detail
        )
    report.warn(f"{wanted.name} did not become ready with {what}; it goes back")
    with run.starting(directory):
        aside = wayback.back(directory, record, put_back=bool(steps))
        run.start_keeper(directory)
    kept = f" The disk as the new one left it is {aside}." if aside else ""
    try:
        _follow(directory, report)
    except WherryError as second:
        return WherryError(
            f"{wanted.name} did not become ready with {what} ({error.message}), nor with the one before, which it has again:"
            f" {second.message}{kept}",
            hint=second.hint,
            detail=second.detail,
        )
    return WherryError(
        f"{wanted.name} did not become ready with {what} and went back to the one before, with which it runs now.{kept}"
        f" Why: {error.message}",
        hint=f"wherry logs serial {wanted.name}, and serial.log.1 beside it",
        detail=error.detail,
    )


def _manifest(sha256: str) -> dict[str, Any]:
    try:
        return images.by_sha(sha256).manifest
    except IsoProblem:
        return {}
