"""Taking over the QEMU that a dead keeper left: what it is, what it was doing, and whether it can go on."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from launcher import __version__, host, identity, release, saved
from launcher.errors import Damaged, NoProgress, Refused, WherryError
from launcher.identity import Found
from launcher.keeper import engine, fault, orphan, stopper, suspender, tidy, virtiofsd
from launcher.keeper.launch import Adopted, adopt
from launcher.keeper.watch import Cancelled, Watch
from launcher.qemu import qmp
from launcher.state import State

if TYPE_CHECKING:
    from launcher.keeper.supervisor import Supervisor
    from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper")

_DAMAGED = "state.json was damaged and is written anew"


def take_over(keeper: Supervisor) -> bool:
    """Have the QEMU that runs as this keeper's. False when it cannot go on: it is ended then, to be started anew.

    A guest that does not answer is no reason for that: the link goes on trying, as with a machine that was ours all the time.
    Raises Refused when what runs is no QEMU of ours, Cancelled when QEMU itself does not answer: nothing is done to it.
    """
    state = _left(keeper)
    found = _find(keeper, state)
    state = state or State(status="running", token=found.token, accel=_accel(found), virtiofs=virtiofsd.of_command(found.argv))
    keeper.state = replace(
        state, qemu_pid=found.pid, qemu_stamp=found.stamp, keeper_pid=os.getpid(), token=found.token, paused=""
    )  # fmt: skip
    if not possible():
        _end_gently(keeper, found)
        return False
    try:
        keeper.guest = adopt(keeper.directory, found, keeper.watch, keeper.on_qmp_event)
        if keeper.guest is None:
            _end_gently(keeper, found)
            return False
        if saved.is_suspended(keeper.directory):  # it ended between the last two steps of saving, or the first of resuming
            _give_up(keeper)
            return False
        if _stands(keeper, state):
            return True
        if state.status == "stopping":
            keeper.watch.wait_end(stopper.PATIENCE)  # containers are getting their time
        elif state.status == "running" or keeper.only_stop:
            _reach(keeper)
            return True
        reason = f"the machine's keeper ended while it was {state.status}"
    except WherryError as error:
        if keeper.only_stop and keeper.guest is not None:
            return True  # it is to end anyway
        log.warning("taking over: %s", error.message)
        if isinstance(error, NoProgress):
            _leave(keeper, found)
        reason = f"the machine's keeper had ended and the machine could not be taken over ({error.message.rstrip('.')})"
        _ask_to_end(keeper)
    _give_up(keeper)
    if not keeper.only_stop:
        keeper.note(f"{reason}; started anew")
    return False


def _stands(keeper: Supervisor, state: State) -> bool:
    """Whether the keeper before ended while it saved the machine, or before a resumed guest was to run; then it goes on."""
    assert keeper.guest is not None
    resumed = state.status == "starting" and "memory" in [name for name, _ in state.timeline]
    if state.status != "suspending" and not resumed:
        return False
    if keeper.only_stop:
        keeper.guest.qmp.execute("cont")
        return True
    saved.discard(keeper.directory)
    tidy.sweep(keeper.directory)
    keeper.update(status="running", ssh_port=state.ssh_port or qmp.ssh_port(keeper.guest.qmp))
    suspender.go_on(keeper, "")
    _wait(keeper)
    return True


def possible() -> bool:
    """Whether a QEMU outlives the channels to its keeper: pipes, where there are no sockets to hand over, end with it."""
    return host.current().ENDPOINT == "unix"


def _end_gently(keeper: Supervisor, found: Found) -> None:
    """Where nothing can be taken over: the guest powers off, and is started anew."""
    began = time.monotonic()
    gently = orphan.end(Adopted(found), keeper.link.fresh)
    keeper.virtiofsds.end()
    keeper.state = replace(keeper.first_state(), notes=keeper.state.notes, restarts=keeper.state.restarts)
    if keeper.only_stop:
        return
    how = "was powered off" if gently else f"gave no answer for {orphan.SILENT:g} s and was ended"
    keeper.note(f"the machine's keeper had ended; the machine {how} and started again, containers were restarted", warning=True)
    keeper.health.mended("the machine's keeper had ended: powered off", time.monotonic() - began)


def tell_succession(keeper: Supervisor) -> None:
    """A note about whom the machine was taken over from."""
    before = keeper.state.wherry
    if release.is_newer(__version__, before or "0"):
        made = f"wherry {before}" if before else "an older wherry"
        keeper.note(f"wherry {__version__} took the machine over from {made}; containers went on", warning=True)
    else:
        keeper.note("the machine's keeper had ended; a new one took over, containers went on")


def _left(keeper: Supervisor) -> State | None:
    """What the keeper before wrote last; None when it is lost or cannot be read."""
    try:
        state = keeper.directory.read_state()
        return state if state.token else None
    except Damaged as error:
        log.warning("%s", error.message)
        return None


def _find(keeper: Supervisor, state: State | None) -> Found:
    if state is not None:
        found = identity.qemu(state.qemu_pid, state.qemu_stamp, state.token)
        if found is not None:
            return found
    # The keeper was killed between the start of QEMU and the note of its pid, or the note is damaged.
    candidates = identity.qemus(keeper.directory.path)
    if len(candidates) == 1:
        return candidates[0]
    lock = keeper.directory.qemu_lock_file
    held = ", ".join(f"{one.pid} QEMU" for one in candidates) or ", ".join(identity.holders(lock)) or "unknown"
    raise Refused(
        f"machine {keeper.directory.name!r} is in use by a process that wherry did not start (pid {held} holds {lock}).",
        hint=f"End that process, then: {keeper.directory.repair_hint}",
    )


def _accel(found: Found) -> str:
    return "tcg" if found.value("-accel").startswith("tcg") else found.value("-accel")


def _reach(keeper: Supervisor) -> None:
    """The connection to the guest; what state.json did not tell is asked. Raises WherryError when QEMU does not answer."""
    assert keeper.guest is not None
    if not keeper.state.ssh_port:
        keeper.update(ssh_port=qmp.ssh_port(keeper.guest.qmp))
    fault.look(keeper.monitor(), keeper.watch)  # who was told of it is gone
    if keeper.watch.fault:
        raise WherryError(f"{keeper.watch.fault}.")
    held = keeper.pause.found_held(keeper.monitor)
    if keeper.only_stop:
        return
    if not held:
        try:
            _learn(keeper, keeper.connection())
            return
        except WherryError as error:
            log.warning("taking over: %s", error.message)
    keeper.link.beat(lambda connection: _learn(keeper, connection))
    keeper.link.want("the machine's keeper had ended")
    if not held:
        _wait(keeper)


def _wait(keeper: Supervisor) -> None:
    """As long as a call waits for a connection that is missed; containers go on, whether it comes or not."""
    try:
        _learn(keeper, keeper.connection())
    except WherryError as error:
        keeper.note(f"the machine has not answered its new keeper yet ({error.message.rstrip('.')})", warning=True)


def _learn(keeper: Supervisor, connection: Connection) -> None:
    if not keeper.state.engine_version:
        keeper.update(engine_version=engine.version(connection))


def _leave(keeper: Supervisor, found: Found) -> None:
    """QEMU itself does not answer: whoever stopped it may let it go on, and its containers with it. For the next keeper.

    Raises Cancelled; returns when QEMU is to end, and has been ended.
    """
    if keeper.only_stop:
        log.warning("QEMU gives no answer; ending it")
        process = Adopted(found)
        process.kill()
        process.wait()
        return
    name = keeper.directory.name
    error = NoProgress(
        f"QEMU (pid {found.pid}) gives no answer: it was stopped, or this computer is too busy. It was left as it is.",
        hint=f"kill -CONT {found.pid} lets a stopped one go on, then: wherry up {name}. Or end it: wherry stop {name}",
    )
    keeper.journal.add({"event": "failed", "error": error.to_json()})
    keeper.leave()
    raise Cancelled


def _ask_to_end(keeper: Supervisor) -> None:
    """The guest powers off, as with `stop`, so that containers get their time."""
    if keeper.guest is not None and stopper.told(keeper):
        keeper.watch.wait_end(stopper.PATIENCE)


def _give_up(keeper: Supervisor) -> None:
    keeper.link.drop()
    if keeper.guest is not None:
        with suppress(WherryError):
            keeper.guest.quit()
    keeper.virtiofsds.end()
    keeper.guest, keeper.watch = None, Watch(keeper.on_message)
    keeper.journal.begin()
    keeper.state = replace(keeper.first_state(), notes=keeper.state.notes, restarts=keeper.state.restarts)
