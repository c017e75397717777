"""The virtiofsds of one machine: tried out, started before its QEMU, known by pid and stamp, ended with it.

Each ends by itself when its QEMU does, and outlives the keeper as QEMU does. Nothing is asked of them: one that ends too early
is never missed by QEMU, only by who waits for it in the guest.
"""

from __future__ import annotations

import logging
import re
import shlex
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from typing import Any, Final, NamedTuple, Protocol

import psutil

from launcher import host, identity, proc, virtiofs
from launcher.config import MachineConfig
from launcher.errors import WherryError
from launcher.keeper.channels import listener
from launcher.qemu.command import FileServer
from launcher.sftp import ownerfile
from launcher.sharing import Share
from launcher.state import State
from launcher.store import MachineDir
from launcher.virtiofs import Program

log = logging.getLogger("wherry.keeper")

_ENDS_WITHIN: Final = 3.0
_TAG: Final = re.compile(r"vhost-user-fs-pci,.*\btag=([a-z0-9-]+)")


class Keeper(Protocol):
    """As much of the supervisor as they need."""

    directory: MachineDir
    config: MachineConfig

    @property
    def state(self) -> State: ...
    def update(self, **values: Any) -> None: ...
    def note(self, text: str, *, warning: bool = False) -> None: ...


class Plan(NamedTuple):
    """What the next start serves over virtiofs."""

    program: Program | None = None
    shares: tuple[Share, ...] = ()

    @property
    def ids(self) -> list[str]:
        return [share.id for share in self.shares]


class Virtiofsds:
    """Those of one keeper. Used by its main thread."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._children: list[proc.Process] = []

    def plan(self) -> Plan:
        """Which shares go over virtiofs, each tried out. Raises MissingOnHost, Refused when machine.toml wants it and it cannot
        be."""
        if not self._keeper.config.shares.virtiofs:
            return Plan()
        program = virtiofs.find()
        shares = virtiofs.chosen(self._keeper.config, program)
        for share in shares:
            virtiofs.try_out(program, share.path, read_only=share.read_only)
            self._tell_owners(share)
        if not shares:
            self._keeper.note("no share can go over virtiofs: wherry share list tells why")
        return Plan(program, tuple(shares))

    def _tell_owners(self, share: Share) -> None:
        """It knows nothing of what containers have asked for before, which is kept for the day that the share is ours again."""
        if ownerfile.remembers(self._keeper.directory.owners_dir / f"{share.id}.sqlite3"):
            meanwhile = "owners and modes remembered for files in it are not shown meanwhile"
            self._keeper.note(f"{share.path} goes over virtiofs: {meanwhile}", warning=True)

    def start(self, plan: Plan) -> tuple[FileServer, ...]:
        """One for each share, listening for its QEMU. What was started is in state.json at once."""
        directory = self._keeper.directory
        servers: list[FileServer] = []
        known: dict[str, list[Any]] = {}
        directory.virtiofsd_log.unlink(missing_ok=True)
        for number, share in enumerate(plan.shares):
            assert plan.program is not None
            address = directory.virtiofs_socket(number)
            with ExitStack() as stack:
                words = stack.enter_context(directory.virtiofsd_log.open("ab"))
                fd = listener(address, stack).fileno()
                argv = plan.program.argv(share.path, read_only=share.read_only, fd=fd)
                log.info("+ %s", shlex.join(argv))
                child = proc.spawn(
                    argv, stdout=words, stderr=words, pass_fds=(fd,), detach=host.current().detach_options()
                )  # fmt: skip
            self._children.append(child)
            known[share.id] = [child.pid, host.current().process_stamp(child.pid) or ""]
            self._keeper.update(virtiofs=dict(known))
            servers.append(FileServer(share.id, str(address)))
        return tuple(servers)

    def end(self) -> None:
        """QEMU is gone: so are they, soon, or are ended."""
        known = self._keeper.state.virtiofs
        end_all(known)
        for child in self._children:
            with suppress(proc.TimeoutExpired):  # it has ended for all others, and is about to for its parent
                child.wait(_ENDS_WITHIN)
        self._children = []
        for number in range(len(known)):
            with suppress(OSError):
                self._keeper.directory.virtiofs_socket(number).unlink(missing_ok=True)
        if known:
            self._keeper.update(virtiofs={})


def end_left(directory: MachineDir) -> None:
    """Those that a dead keeper left, of a machine that does not run: it was killed before QEMU had met them."""
    with suppress(WherryError):
        end_all(directory.read_state().virtiofs)


def end_all(known: Mapping[str, list[Any]]) -> None:
    """Wait a little for each to end by itself, and end it then. Another process that has got its pid is left alone."""
    deadline = time.monotonic() + _ENDS_WITHIN
    for pid, stamp in known.values():
        if pid and stamp and not identity.ended(pid, stamp, max(0.0, deadline - time.monotonic())):
            log.warning("virtiofsd %d goes on though its machine has ended; it is killed", pid)
            with suppress(psutil.Error):
                psutil.Process(pid).kill()
            if not identity.ended(pid, stamp, _ENDS_WITHIN):
                log.warning("virtiofsd %d cannot be killed", pid)


def lives(pid: int, stamp: str) -> bool:
    """Whether it still runs; true when its pid is not known."""
    return not pid or host.current().process_stamp(pid) == stamp


def of_command(argv: Iterable[str]) -> dict[str, list[Any]]:
    """For state.json, where that was lost: the shares of a QEMU by its command line, which does not tell who serves them."""
    return {found[1]: [0, ""] for word in argv if (found := _TAG.match(word))}
