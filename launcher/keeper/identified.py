"""What a saved memory belongs to: told when it is saved, compared before it is used."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from launcher import host, saved, seed
from launcher.errors import Refused
from launcher.qemu import probe, signature
from launcher.qemu.command import family
from launcher.saved import Saved
from launcher.store import MachineDir

if TYPE_CHECKING:
    from launcher.keeper.supervisor import Supervisor
    from launcher.qemu.probe import Qemu


@dataclass
class Parts:
    """The other parts of a keeper, as far as being saved concerns them."""

    at_rest: list[Callable[[], object]] = field(default_factory=list)  # each ends what it has under way
    hindrances: list[Callable[[], str]] = field(default_factory=list)  # why it cannot be now, a sentence; empty: it can


def describe(keeper: Supervisor) -> Saved:
    """What the memory of the machine belongs to; disk and size come later. Raises Refused when it cannot be saved."""
    why = next(_hindrances(keeper), None)
    if why is not None:
        name = keeper.directory.name
        raise Refused(f"machine {name!r} cannot be suspended: {why}.", hint=f"wherry stop {name}")
    guest, state = keeper.guest, keeper.state
    assert guest is not None
    qemu = probe.find(keeper.config.arch, keeper.config.qemu)
    cpus, memory = signature.hardware(guest.process.argv)
    return Saved(
        id=secrets.token_hex(16), iso=keeper.config.iso, qemu=str(qemu.program), qemu_version=qemu.text,
        accel=state.accel, cpu=_cpu(state.accel), cpus=cpus, ram=memory << 20,
        command=signature.of(guest.process.argv[1:]), disk=[0, 0], memory=0, engine=state.engine_version,
    )  # fmt: skip


def completed(directory: MachineDir, description: Saved) -> Saved:
    """With what is known when the memory is in its file and QEMU writes to the disk no more."""
    size = directory.memory_file.stat().st_size
    return replace(description, disk=saved.stamp(directory, suspended=False), memory=size, at=time.time())


def check(directory: MachineDir, found: Saved, iso: str, qemu: Qemu) -> None:
    """Raises Refused when the memory does not belong to the disk as it is, to this QEMU, ISO or computer."""
    why = next(_differences(directory, found, iso, qemu), None)
    if why is not None:
        raise Refused(
            f"machine {directory.name!r} is suspended and cannot go on from there: {why}.", hint=saved.cold_hint(directory)
        )


def check_command(directory: MachineDir, found: Saved, argv: Sequence[str]) -> None:
    """Raises Refused when QEMU would be started with another machine than the one that was saved."""
    differs = signature.difference(found.command, signature.of(argv))
    if differs:
        raise Refused(
            f"machine {directory.name!r} is suspended and cannot go on from there: it was saved by wherry {found.wherry},"
            f" which starts QEMU otherwise ({differs}).",
            hint=saved.cold_hint(directory),
        )  # fmt: skip


def _hindrances(keeper: Supervisor) -> Iterator[str]:
    state = keeper.state
    if family(state.accel) == "whpx":
        yield "QEMU cannot save the state of the Windows Hypervisor Platform"
    if host.current().ENDPOINT != "unix":
        yield f"the memory cannot be handed over on {host.current().NAME}"
    if keeper.disk_action != seed.USE:
        yield "its disk is open for repair or a look only"
    if state.paused:
        yield f"it is held, since {state.paused}"
    yield from filter(None, (why() for why in keeper.parts.hindrances))


def _differences(directory: MachineDir, found: Saved, iso: str, qemu: Qemu) -> Iterator[str]:
    if found.iso != iso:
        yield f"it belongs to the ISO {found.iso[:12]}, and the machine has {iso[:12]}"
    if found.qemu_version != qemu.text:
        yield f"it was saved by {found.qemu_version}, and this computer has {qemu.text}"
    if found.cpu != _cpu(found.accel):
        yield "it was saved on another processor"
    if saved.stamp(directory, suspended=True) != found.disk:
        yield f"its disk {directory.suspended_disk.name} was changed since"
    if not directory.memory_file.exists():
        yield f"{directory.memory_file} is lost"
    elif directory.memory_file.stat().st_size != found.memory:
        yield f"{directory.memory_file} is damaged"


def _cpu(accel: str) -> str:
    """Under emulation the processor is QEMU's own."""
    return "" if family(accel) == "tcg" else host.current().processor()
