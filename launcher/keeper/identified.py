"""What a saved memory belongs to: told when it is saved, compared before it is used."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from launcher import host, saved, seed, virtiofs
from launcher.errors import Refused
from launcher.qemu import signature
from launcher.qemu.command import family
from launcher.saved import Saved
from launcher.store import MachineDir

if TYPE_CHECKING:
    from launcher.keeper.supervisor import Supervisor
    from launcher.qemu.qmp import Qmp
    from launcher.ssh.transport import Connection


def _event() -> threading.Event:
    """One that is set."""
    event = threading.Event()
    event.set()
    return event


@dataclass
class Parts:
    """The other parts of a keeper, as far as being saved concerns them."""

    at_rest: list[Callable[[], object]] = field(default_factory=list)  # each ends what it has under way
    # What is done on a first connection before anybody else uses it: under emulation all at once would hold each other up.
    greet: Callable[[Connection], object] | None = None
    # Not set from a resume until the published ports are back: what is not as urgent waits for it, but not long.
    urgent_done: threading.Event = field(default_factory=_event)
    used: Callable[[], bool] = lambda: False  # whether somebody came after it was decided that the machine may sleep
    hindrances: list[Callable[[], str]] = field(default_factory=list)  # why it cannot be now, a sentence; empty: it can


def describe(keeper: Supervisor) -> Saved:
    """What the memory of the machine belongs to; disk and size come later. Raises Refused when it cannot be saved."""
    why = next(_hindrances(keeper), None)
    if why is not None:
        name = keeper.directory.name
        raise Refused(f"machine {name!r} cannot be suspended: {why}.", hint=f"wherry stop {name}")
    guest, state = keeper.guest, keeper.state
    assert guest is not None
    cpus, memory = signature.hardware(guest.process.argv)
    return Saved(
        id=secrets.token_hex(16), iso=keeper.config.iso, qemu_version=_version(guest.qmp),
        accel=state.accel, cpu=_cpu(state.accel), cpus=cpus, ram=memory << 20,
        command=signature.of(guest.process.argv[1:]), disk=[0, 0], memory=0, engine=state.engine_version,
    )  # fmt: skip


def completed(directory: MachineDir, description: Saved) -> Saved:
    """With what is known when the memory is in its file and QEMU writes to the disk no more; `at` is known before."""
    size = directory.memory_file.stat().st_size
    return description._replace(disk=saved.stamp(directory, suspended=False), memory=size)


def check(directory: MachineDir, found: Saved, iso: str) -> None:
    """Raises Refused when the memory does not belong to the disk as it is, to this ISO or computer."""
    why = next(_differences(directory, found, iso), None)
    if why is not None:
        raise _refused(directory, why)


def check_command(directory: MachineDir, found: Saved, argv: Sequence[str]) -> None:
    """Raises Refused when QEMU would be started with another machine than the one that was saved."""
    differs = signature.difference(found.command, signature.of(argv))
    if differs:
        raise _refused(directory, f"it was saved by wherry {found.wherry}, which starts QEMU otherwise ({differs})")


def check_version(directory: MachineDir, found: Saved, monitor: Qmp) -> None:
    """Raises Refused for a QEMU that is another than the one that saved the memory: asked is what runs, not a file."""
    now = _version(monitor)
    if found.qemu_version != now:
        raise _refused(directory, f"it was saved by QEMU {found.qemu_version}, and this computer has {now}")


def _refused(directory: MachineDir, why: str) -> Refused:
    said = f"machine {directory.name!r} is suspended and cannot go on from there: {why}."
    return Refused(said, hint=saved.cold_hint(directory))


def _version(monitor: Qmp) -> str:
    """`7.2.22 (Debian 1:7.2+dfsg-7)`: two builds of one version differ in it."""
    told = monitor.execute("query-version")
    number = ".".join(str(told["qemu"][part]) for part in ("major", "minor", "micro"))
    return f"{number} ({told['package']})" if told.get("package") else number


def _hindrances(keeper: Supervisor) -> Iterator[str]:
    state = keeper.state
    if family(state.accel) == "whpx":
        yield "QEMU cannot save the state of the Windows Hypervisor Platform"
    if not saved.possible():
        yield f"the memory cannot be handed over on {host.current().NAME}"
    if keeper.disk_action != seed.USE:
        yield "its disk is open for repair or a look only"
    if state.paused:
        yield f"it is held, since {state.paused}"
    yield from filter(None, (virtiofs.suspend_hindered_by(state), *(why() for why in keeper.parts.hindrances)))


def _differences(directory: MachineDir, found: Saved, iso: str) -> Iterator[str]:
    if found.iso != iso:
        yield f"it belongs to the ISO {found.iso[:12]}, and the machine has {iso[:12]}"
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
