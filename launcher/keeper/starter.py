"""From nothing to ready: the ladder of accelerators, the stages, the first SSH connection."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from launcher import disks, errors, images, readiness, seed
from launcher.errors import ConnectionLost, LaunchFailed, Refused, WherryError
from launcher.identity import new_token
from launcher.keeper import access, engine, fault
from launcher.keeper.console import tail
from launcher.keeper.launch import launch
from launcher.keeper.watch import Cancelled, Ended, Stalled, Watch
from launcher.qemu import probe, sshport
from launcher.ssh import library
from launcher.state import State

if TYPE_CHECKING:
    from launcher.images import Iso
    from launcher.keeper.supervisor import Supervisor
    from launcher.keeper.virtiofsd import Plan
    from launcher.qemu.probe import Qemu
    from launcher.store import MachineDir

log = logging.getLogger("wherry.keeper")

# A guest kernel under multi-threaded emulation can trip over its own code patching before it says anything
# (ARCHITECTURE.md, "Emulation"): that, and only that, is worth one more try on the same rung.
PANIC = "panic-before-first-stage"


def start(keeper: Supervisor) -> None:
    """Bring the machine up. Raises WherryError, or Cancelled when a stop was asked for."""
    directory, config = keeper.directory, keeper.config
    holds = _examined(directory)
    iso = images.by_sha(config.iso)
    qemu = probe.find(config.arch, config.qemu)
    plan = keeper.virtiofsds.plan()
    written = seed.write(directory, config, holds, keeper.disk_action, plan.ids)
    rungs = probe.ladder(config.accel, config.arch, qemu, probe.remembered(qemu, config.arch))
    for number, rung in enumerate(rungs):
        try:
            _climb(keeper, iso, qemu, rung, written, plan)
            break
        except (LaunchFailed, errors.NoProgress) as error:
            # Only a rung that never spoke is bad; a guest that started and then failed would fail on the next one too.
            if number == len(rungs) - 1 or keeper.watch.stages:
                raise
            keeper.note(f"{rung.split(',')[0]} does not work here ({error.message.rstrip('.')}); trying {rungs[number + 1]}")
            _discard(keeper)
    probe.remember(qemu, config.arch, keeper.state.accel)
    _finish(keeper)


def _examined(directory: MachineDir) -> disks.Holds:
    """How much the data disk holds, looked at while no QEMU has it. Raises Refused for one that is not the machine's."""
    try:
        return disks.examine(directory.data_disk, probe.find_img())
    except Refused as error:
        again = f"wherry repair --new-disk {directory.name} makes an empty one"
        error.hint = error.hint or f"Put the machine's own disk back, or take it away: {again}."
        raise


def _climb(keeper: Supervisor, iso: Iso, qemu: Qemu, rung: str, written: tuple[tuple[str, str], ...], plan: Plan) -> None:
    """One rung, up to the guest's first stage."""
    for attempt in range(2):
        try:
            _boot(keeper, iso, qemu, rung, written, plan)
            return
        except LaunchFailed:
            if attempt == 1 or keeper.watch.panic is None or keeper.watch.stages:
                raise
            count = keeper.state.restarts.get(PANIC, 0) + 1
            keeper.update(restarts={**keeper.state.restarts, PANIC: count})
            keeper.note(f"{PANIC}: the guest's kernel failed before its first word ({keeper.watch.panic}); started once more")
            _discard(keeper)


def _discard(keeper: Supervisor) -> None:
    if keeper.guest is not None:
        keeper.guest.quit()
        keeper.guest = None
    keeper.virtiofsds.end()


def _boot(keeper: Supervisor, iso: Iso, qemu: Qemu, rung: str, written: tuple[tuple[str, str], ...], plan: Plan) -> None:
    if keeper.watch.cancelled:
        raise Cancelled
    keeper.watch = Watch(keeper.on_message)
    if keeper.stop_wanted:  # a request that still saw the watch before
        raise Cancelled
    # The token is on disk before QEMU is there, so that a keeper killed now leaves nothing unknown.
    keeper.update(token=new_token(), accel=rung, timeline=[], qemu_pid=0, qemu_stamp="", ssh_port=0)
    token = keeper.state.token
    servers = keeper.virtiofsds.start(plan)
    keeper.guest = launch(
        keeper.directory, keeper.config, iso, qemu, rung, token, written, keeper.watch, keeper.on_qmp_event, servers
    )  # fmt: skip
    keeper.update(qemu_pid=keeper.guest.process.pid, qemu_stamp=keeper.guest.process.stamp)
    fault.look(keeper.guest.qmp, keeper.watch)  # what was heard of before there was a monitor to ask
    try:
        keeper.update(ssh_port=sshport.forward(keeper.guest.qmp))
    except ConnectionLost:  # QEMU has ended: there it is said why
        _wait(keeper, "kernel")
        raise
    library.load()  # while the guest boots
    _wait(keeper, "kernel")


def _wait(keeper: Supervisor, stage: str) -> None:
    patience = readiness.patience("tcg" if keeper.state.accel.startswith("tcg") else keeper.state.accel)
    try:
        keeper.watch.wait_stage(stage, patience)
    except Ended:
        raise died(keeper) from None
    except Stalled as stall:
        raise readiness.stalled(keeper.watch.stages, stall.waited, tail(keeper.directory.serial_log)) from None
    if keeper.watch.failure is not None:
        raise readiness.failed(keeper.watch.failure, tail(keeper.directory.serial_log), keeper.directory.name)


def _finish(keeper: Supervisor) -> None:
    """From the first stage to ready."""
    _wait(keeper, "ssh")
    began = time.monotonic()
    connection = keeper.connection()
    log.info("ssh connected in %.2f s", time.monotonic() - began)
    keeper.healer.set_clock(connection)  # before the engine starts what comes back by itself
    code, _, words = connection.run(["/usr/lib/wherry/ssh-port", str(keeper.state.ssh_port)], timeout=60)
    if code != 0:
        why = words.decode(errors="replace").strip()
        raise WherryError(f"the guest's firewall could not be set: {why}", hint=f"wherry logs serial {keeper.directory.name}")
    if keeper.config.host_access != "all":
        access.apply(connection, keeper.config)  # the boot did it, but for an image that does not know it yet
    if keeper.disk_action == seed.READ_ONLY:
        _wait(keeper, "disk")
        return
    _wait(keeper, "ready")
    keeper.update(engine_version=engine.version(connection))
    keeper.healer.set_clock(connection)


def died(keeper: Supervisor) -> LaunchFailed:
    """QEMU ended though nobody asked it to."""
    code, panic = keeper.watch.exit_code, keeper.watch.panic
    if code is None:  # its parent, an earlier keeper, is gone
        ended = "ended; it was taken over from an earlier keeper, so nobody was told how"
    else:
        ended = f"was ended by signal {-code}" if code < 0 else f"ended by itself with exit code {code}"
    message = f"the guest's kernel failed: {panic}" if panic else f"{keeper.watch.fault or f'QEMU {ended}'}."
    lines = tail(keeper.directory.serial_log) + "\n" + tail(keeper.directory.qemu_log, 5)
    return LaunchFailed(message, hint=f"wherry up {keeper.directory.name}", detail=lines.strip() or None)


def error_of(event: dict[str, Any]) -> WherryError:
    return errors.from_json(event["error"])


def summary(state: State) -> dict[str, Any]:
    """What `up` shows of a finished start."""
    seconds = state.timeline[-1][1] if state.timeline else 0.0
    return {
        "seconds": seconds,
        "accel": state.accel.split(",")[0],
        "engine": state.engine_version,
        "timeline": state.timeline,
        "notes": state.notes,
        "pid": os.getpid(),
    }
