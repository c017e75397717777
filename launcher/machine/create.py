"""Making a machine, and changing what was decided for one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from launcher import config, host, sharing, store
from launcher.config import GIB, MIB, BadValue, MachineConfig, Shares, format_size
from launcher.errors import Refused, Usage
from launcher.report import Reporter
from launcher.store import MachineDir

if TYPE_CHECKING:
    from launcher.images import IsoSource

_MOST_CPUS: Final = 255  # of a machine (config.py)
_LEAST_MEMORY: Final = 2 * GIB


@dataclass(frozen=True)
class UpOptions:
    """What a user may decide in `up` and `init`; None is "as it is", or our default for a new machine. Sizes in bytes."""

    cpus: int | None = None
    memory: int | None = None
    disk: int | None = None
    arch: str | None = None
    iso: IsoSource | None = None
    publish_address: str | None = None
    share: tuple[str, ...] = ()  # PATH[:ro], relative to where we are
    no_home: bool = False


def init(name: str, options: UpOptions, report: Reporter) -> None:
    """Make a machine without starting it. Raises Refused when there is one of that name."""
    if store.machine(name).exists():
        raise Refused(f"machine {name!r} exists already.", hint=f"wherry up {name}")
    if not make(name, options, report):
        raise Refused(f"machine {name!r} exists already.", hint=f"wherry up {name}")


def make(name: str, options: UpOptions, report: Reporter) -> bool:
    """Make the machine unless it is there; False when another command made it first."""
    with creating():
        if store.machine(name).exists():
            return False
        _make(name, options, report)
    return True


@contextmanager
def creating(*, wait: bool = True) -> Iterator[None]:
    """The right to make a machine, for one command at a time: two would both copy the ISO and both make the disk.

    Raises Refused when another command has it and we do not `wait`.
    """
    home = store.home() / "machines"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    store.sweep()
    lock = host.current().lock(home / ".create.lock", wait=wait)
    if lock is None and not wait:
        raise Refused("another command is making a machine.", hint="Try again when it is done.")
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _make(name: str, options: UpOptions, report: Reporter) -> None:
    from launcher import disks, images
    from launcher.qemu import probe
    from launcher.ssh import keys

    check_memory(options.memory)
    arch = options.arch or host.native_arch()
    if arch not in config.ARCHES:
        raise Usage(f"--arch {arch}: {' or '.join(config.ARCHES)}.")
    shares = _shares(options)
    probe.find(arch)  # a computer without QEMU says so before anything is made
    image_tool = probe.find_img()
    iso = images.resolve(arch, options.iso, report)
    report.step("iso", f"wherry {iso.version} {iso.arch}   {iso.path.stat().st_size / 1e6:.0f} MB   verified")
    wanted = MachineConfig(
        arch=arch, cpus=options.cpus or default_cpus(), memory=options.memory or default_memory(), iso=iso.sha256,
        disk=options.disk or MachineConfig.disk, publish_address=options.publish_address or "",
        shares=shares,
    )  # fmt: skip

    def fill(made: MachineDir) -> None:
        keys.make_keys(made)
        disks.create(made.data_disk, wanted.disk, image_tool)

    store.create(name, wanted, fill)
    report.step("machine", f"{name}   {describe(wanted)}")


def _shares(options: UpOptions) -> Shares:
    folders = [sharing.split(folder) for folder in options.share]
    entries = tuple(sharing.entry(path, read_only) for path, read_only in folders)
    wanted = Shares(home=not options.no_home, folders=entries)
    for entry in entries:
        sharing.check(sharing.split(entry)[0], sharing.shares_in(wanted))
    return wanted


def describe(wanted: MachineConfig) -> str:
    cpus = "1 CPU" if wanted.cpus == 1 else f"{wanted.cpus} CPUs"
    return f"{wanted.arch} · {cpus} · {format_size(wanted.memory)} memory · {format_size(wanted.disk)} disk"


def default_cpus() -> int:
    return min(os.cpu_count() or 1, _MOST_CPUS)


def default_memory() -> int:
    """A quarter of this computer's memory, in steps of 512 MB, 2 GB at least, or all that a smaller computer has. Memory that
    the machine does not use any more goes back to this computer, so a large number costs nothing at rest."""
    import psutil

    total: int = psutil.virtual_memory().total
    step = 512 * MIB
    return max(step, min(total // step * step, max(_LEAST_MEMORY, total // 4 // step * step)))


def check_memory(wanted: int | None) -> None:
    """Raises Usage for more memory than this computer has, before it is written down and every start fails."""
    if wanted is None:
        return
    import psutil

    total: int = psutil.virtual_memory().total
    if wanted > total:
        raise Usage(
            f"{format_size(wanted)} of memory is more than this computer has ({total / GIB:.1f}G).",
            hint="wherry up --memory 4G",
        )


def change(directory: MachineDir, options: UpOptions, report: Reporter) -> None:
    """Take over what the options say for a machine that is there. Raises Usage for what cannot change."""
    check_memory(options.memory)
    now = directory.read_config()
    if options.arch not in (None, now.arch):
        raise Usage(
            f"machine {directory.name!r} is {now.arch}; another architecture is another machine.",
            hint="wherry up NAME --arch …",
        )
    if options.disk not in (None, now.disk):
        raise Usage(
            f"the disk of machine {directory.name!r} has {format_size(now.disk)}.",
            hint=f"To make it larger: wherry disk grow {directory.name} SIZE",
        )
    _have_iso(directory.name, now, options.iso, report)
    published = options.publish_address or now.publish_address
    wanted = now.changed(cpus=options.cpus or now.cpus, memory=options.memory or now.memory, publish_address=published)
    if (wanted.cpus, wanted.memory) != (now.cpus, now.memory):
        from launcher.machine.suspend import refuse_suspended

        refuse_suspended(directory, "it keeps its CPUs and memory")
    if wanted != now:
        directory.write_config(wanted)
        report.note(f"{directory.name}: {describe(wanted)} from its next start on")
    if options.share or options.no_home:
        from launcher.machine import shares

        for done in shares.change_for_up(directory.name, options.share, options.no_home):
            if done.why:
                report.note(done.why)


def _have_iso(name: str, now: MachineConfig, wanted: IsoSource | None, report: Reporter) -> None:
    """Have the machine's own ISO, should the cache have been emptied. Raises Usage when another one is wanted."""
    from launcher import images

    if wanted is None:
        images.restore(now.iso, now.arch, report)
        return
    # An address tells what it has without a download.
    if now.iso not in (wanted.sha256, "" if wanted.sha256 else images.resolve(now.arch, wanted, report).sha256):
        raise Usage(f"machine {name!r} keeps the ISO that it was made with.", hint=f"wherry upgrade --iso … {name}")
    images.resolve(now.arch, wanted, report)


def check_certificates(file: Path) -> None:
    """Raises BadValue for a file that is none of certificates."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadValue("network.ca", f"network.ca = {str(file)!r} is no file of certificates in PEM: {reason}.") from None
