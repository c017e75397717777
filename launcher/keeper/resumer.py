"""From saved to running: QEMU reads the memory and stands, the disk gets its own name back, and only then the guest runs.

A kill before that leaves the machine suspended, for nothing has written to its disk; a kill after it leaves a disk as after a
power cut. Nothing connects to a guest that does not run: slirp would send a lost first packet again after seconds only.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from launcher import disks, host, images, saved, seed
from launcher.errors import ConnectionLost, Damaged, WherryError
from launcher.identity import new_token
from launcher.keeper import access, identified, suspender
from launcher.keeper.launch import launch
from launcher.keeper.watch import Cancelled, Watch
from launcher.qemu import migration, probe, sshport
from launcher.ssh import library

if TYPE_CHECKING:
    from launcher.keeper.launch import Guest
    from launcher.keeper.supervisor import Supervisor
    from launcher.saved import Saved
    from launcher.ssh.transport import Connection
    from launcher.store import MachineDir

log = logging.getLogger("wherry.keeper")


def resume(keeper: Supervisor) -> None:
    """Have a suspended machine run again. Raises Refused when its memory does not belong to what is there, Damaged when it
    cannot be read, and WherryError: in all of these it stays suspended; Cancelled when a stop was asked for."""
    directory = keeper.directory
    saved.check_disks(directory)
    found = saved.read(directory)
    guest = _load(keeper, found)
    port = sshport.forward(guest.qmp)
    if keeper.stop_wanted:
        raise Cancelled
    _stage(keeper, "memory")  # by this a keeper that comes after us knows that the guest is whole, and may run
    saved.spend(directory)
    keeper.watch.stages.extend(("kernel", "root", "disk", "ssh"))  # it has them behind it
    guest.qmp.execute("cont")
    behind = time.time() - found.at  # its clock stood still
    keeper.update(ssh_port=port, engine_version=found.engine)
    _wake(keeper, found, behind)
    _stage(keeper, "ready")


def _wake(keeper: Supervisor, found: Saved, behind: float) -> None:
    """What the guest does not answer now it is asked with its next connection; containers go on, whether that comes or not."""

    def greet(connection: Connection) -> None:
        _stage(keeper, "ssh")
        if keeper.directory.config_file.stat().st_mtime > found.at:
            access.apply(connection, keeper.config)
        suspender.wake(keeper, connection, found.id, behind)

    keeper.parts.greet = greet
    keeper.parts.urgent_done.clear()
    try:
        keeper.connection()
    except WherryError as error:
        keeper.note(f"the machine has not answered since it was resumed ({error.message.rstrip('.')})", warning=True)
        keeper.link.want("the machine was resumed")


def _load(keeper: Supervisor, found: Saved) -> Guest:
    """A QEMU that has the memory and stands."""
    directory = keeper.directory
    config = keeper.config.changed(cpus=found.cpus, memory=found.ram)
    iso = images.by_sha(config.iso)
    qemu = probe.find(config.arch, config.qemu)
    identified.check(directory, found, iso.sha256)
    files = seed.again(directory, config, disks.Holds.MUCH)
    keeper.watch = Watch(keeper.on_message)
    if keeper.stop_wanted:  # a request that still saw the watch before
        raise Cancelled
    keeper.update(token=new_token(), accel=found.accel, timeline=[], qemu_pid=0, qemu_stamp="", ssh_port=0)
    token = keeper.state.token
    guest = launch(
        directory, config, iso, qemu, found.accel, token, files, keeper.watch, keeper.on_qmp_event, incoming=True,
        check=lambda argv: identified.check_command(directory, found, argv),
    )  # fmt: skip
    keeper.guest = guest
    keeper.update(qemu_pid=guest.process.pid, qemu_stamp=guest.process.stamp)
    identified.check_version(directory, found, guest.qmp)
    _stage(keeper, "qemu")
    _read(directory, guest, found)
    return guest


def _read(directory: MachineDir, guest: Guest, found: Saved) -> None:
    """Raises WherryError unless QEMU has all of it, and the checksum at its end is right."""
    from launcher import ramfile  # 17 ms of every other start

    source, sink = os.pipe()
    host.current().widen(sink)
    failed: list[Exception] = []

    def pump() -> None:
        try:
            ramfile.read(directory.memory_file, sink, found.id)
        except (OSError, WherryError) as error:
            failed.append(error)
        finally:
            os.close(sink)

    reader = threading.Thread(target=pump, name="memory", daemon=True)
    reader.start()
    try:
        try:
            migration.receive(guest.qmp, source)
            library.load()  # while QEMU reads
        finally:
            reader.join()
        migration.wait(guest.qmp)
        ended: WherryError | None = None
    except WherryError as error:
        ended = error
    # QEMU that is given half a guest ends: why it was given half tells more.
    damaged = next((error for error in failed if not isinstance(error, BrokenPipeError)), None)
    if damaged is not None or ended is not None:
        raise _failed(directory, damaged, ended)


def _failed(directory: MachineDir, damaged: Exception | None, ended: WherryError | None) -> WherryError:
    if damaged is not None:
        why = damaged.message if isinstance(damaged, WherryError) else str(damaged)
        return Damaged(f"the saved memory of machine {directory.name!r} cannot be used: {why}", hint=saved.cold_hint(directory))
    assert ended is not None
    said = "QEMU ended while it read it" if isinstance(ended, ConnectionLost) else ended.message
    tail = directory.qemu_log.read_text(encoding="utf-8", errors="replace").strip()
    return WherryError(
        f"the saved memory of machine {directory.name!r} could not be loaded: {said.rstrip('.')}.",
        hint=saved.cold_hint(directory), detail=tail or None,
    )  # fmt: skip


def _stage(keeper: Supervisor, name: str) -> None:
    elapsed = round(time.monotonic() - keeper.began, 2)
    log.info("resume: %s after %.2f s", name, elapsed)
    keeper.update(timeline=[*keeper.state.timeline, [name, elapsed]])
    keeper.journal.add({"event": "stage", "name": name, "seconds": elapsed})
