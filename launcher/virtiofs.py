"""Shares over virtiofs: which can go that way, the program that serves them, and whether it works here. Linux only.

virtiofsd knows nothing of places that a machine may not see or change: so only shares in which there is no such place, and in
which no other one was given, go over it. There are two programs of that name, and both take `--fd` for a listening socket:

    in C, of QEMU up to 7.2    works as root only: unshare(2), or chroot(2), is refused to others; cannot refuse writes itself;
                               owners and groups of new files are those of the guest
    in Rust, gitlab.com/virtio-fs/virtiofsd, tried with 1.13.2
                               works as any user, in a user namespace; `--readonly`; `--translate-uid` gives all to one owner
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from launcher import host, privacy, proc, sharing
from launcher.errors import Damaged, MissingOnHost, Refused
from launcher.sftp.policy import Policy
from launcher.sharing import Share

if TYPE_CHECKING:
    from launcher.config import MachineConfig
    from launcher.state import State
    from launcher.store import MachineDir

_OFF: Final = "wherry config set shares.virtiofs false"
_HELP_SECONDS: Final = 20.0
_ANSWER_SECONDS: Final = 20.0
# QEMU docs/interop/vhost-user.rst: request, flags (version 1), size; GET_FEATURES, answered by a u64.
_GET_FEATURES: Final = struct.pack("=III", 1, 1, 0)
_EVERYBODY: Final = 0xFFFFFFFF  # how many owners there are but for the one that means none


class Program(NamedTuple):
    """A virtiofsd, by what it can do."""

    path: Path
    is_qemus: bool  # the one in C
    read_only: bool  # it refuses changes itself
    squashes: bool  # it can give all that is new to one owner

    def argv(self, folder: str, *, read_only: bool, fd: int) -> list[str]:
        """The whole command that serves a folder to whoever connects first to the listening socket `fd`, and then ends.

        Without CAP_MKNOD, which root's would have: a device that the machine makes is one of this computer.
        """
        if self.is_qemus:
            return [str(self.path), f"--fd={fd}", "-o", f"source={folder}", "-o", "modcaps=-mknod", "-o", "log_level=warn"]
        words = [str(self.path), f"--fd={fd}", f"--shared-dir={folder}", "--sandbox=namespace", "--modcaps=-mknod"]
        words.append("--log-level=warn")
        if self.squashes:
            words += [f"--translate-uid=squash-guest:0:{os.geteuid()}:{_EVERYBODY}"]
            words += [f"--translate-gid=squash-guest:0:{os.getegid()}:{_EVERYBODY}"]
        return [*words, "--readonly"] if read_only else words


def find() -> Program:
    """The virtiofsd of this computer. Raises MissingOnHost when there is none that can be used."""
    folders = host.current().virtiofsd_folders()
    if not folders:
        raise MissingOnHost(f"shares.virtiofs is for Linux, there is no virtiofsd on {host.current().NAME}.", hint=_OFF)
    path = proc.find("virtiofsd", folders)
    if path is None:
        places = ", ".join(str(folder) for folder in folders)
        raise MissingOnHost(
            f"shares.virtiofs is set, and there is no virtiofsd on this computer (sought in PATH, {places}).",
            hint=f"Install the package virtiofsd, or: {_OFF}",
        )
    words = proc.run([path, "--help"], timeout=_HELP_SECONDS)
    is_qemus = "--shared-dir" not in words
    if is_qemus and "-o source=" not in words:
        raise MissingOnHost(f"{path} is no virtiofsd that wherry knows.", hint=_OFF)
    return Program(path, is_qemus, "--readonly" in words, "squash-guest" in words)


def check() -> None:
    """Raises MissingOnHost or Refused when shares.virtiofs cannot be here."""
    program = find()
    with tempfile.TemporaryDirectory(prefix="wherry-") as folder:
        try_out(program, folder, read_only=False)


def chosen(config: MachineConfig, program: Program) -> list[Share]:
    """The shares that it is to serve."""
    return [share for share, why in judged(config, program) if not why]


def judged(config: MachineConfig, program: Program | None = None) -> list[tuple[Share, str]]:
    """Each share that is mounted itself, with why it does not go over virtiofs; empty when it does. Without a program as far
    as the share alone tells."""
    shares = sharing.shares_of(config)
    places = [*privacy.hidden_places(config), *privacy.protected_places()]
    return [(share, _why_not(share, shares, places, program)) for share in shares if not share.inside]


def reasons(config: MachineConfig, served: Collection[str]) -> dict[str, str]:
    """Why each share of a machine that wants virtiofs is served by us, by its id; not of those that are rules of another."""
    return {
        share.id: why or "it was added after the start" for share, why in judged(config) if share.id not in served
    }  # fmt: skip


def _why_not(share: Share, shares: Sequence[Share], places: Sequence[str], program: Program | None) -> str:
    if any(other.inside == share.id for other in shares):
        return "another share lies in it"
    try:
        policy = Policy(Path(share.path), hidden=places)
    except OSError:
        return "it is not there"
    if not policy.is_plain:
        return "it holds private places"
    if program is not None and share.read_only and not program.read_only:
        return "this virtiofsd cannot keep it read-only"
    if program is not None and program.is_qemus and set(share.path) & set(",\\"):
        return "this virtiofsd cannot be told its name"
    return ""


def try_out(program: Program, folder: str, *, read_only: bool) -> None:
    """Start it for a folder, and greet it as QEMU does. Raises Refused, with its words, when it does not answer.

    It takes its rights away only when somebody has connected; where the system does not let it, QEMU would end with it.
    """
    with tempfile.TemporaryDirectory(prefix="wherry-") as private, contextlib.ExitStack() as stack:
        address = f"{private}/s"
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(address)
        listening.listen(1)
        words = stack.enter_context((Path(private) / "log").open("w+b"))
        argv = program.argv(folder, read_only=read_only, fd=listening.fileno())
        process = proc.spawn(argv, stdout=words, stderr=words, pass_fds=(listening.fileno(),))
        try:
            listening.close()  # so that a process that has ended is met by nobody
            answered = _greet(address)
            process.wait(_ANSWER_SECONDS)
        except proc.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.wait()
        words.seek(0)
        said = words.read().decode(errors="replace").strip()
    if not answered:
        root = " This one, QEMU's own, works for root only." if program.is_qemus and os.geteuid() != 0 else ""
        raise Refused(
            f"{program.path} does not work here.{root}",
            hint=f"Install a newer one (a package of its own, virtiofsd), or: {_OFF}", detail=said or None,
        )  # fmt: skip


def _greet(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(_ANSWER_SECONDS)
        try:
            stream.connect(address)
            stream.sendall(_GET_FEATURES)
            return bool(stream.recv(64))
        except OSError:
            return False


def check_change(directory: MachineDir, before: MachineConfig, after: MachineConfig) -> None:
    """Raises Refused for a change that would take from a machine that runs a share which it has over virtiofs, or put rules
    into it: its virtiofsd knows none, and whoever waits for one that is gone waits for ever."""
    try:
        served = directory.read_state().virtiofs
    except Damaged:
        return
    modes = {share.id: share.read_only for share in sharing.shares_of(before)}
    # Of one that is not there now nobody can tell.
    fit = {share.id: share.read_only for share, why in judged(after) if not why or not Path(share.path).is_dir()}
    for name in served:
        if fit.get(name) is not modes.get(name, False):
            raise Refused(
                f"the machine has {_path(name, before)} over virtiofs, and that cannot change while it runs.",
                hint="Stop the machine first: wherry stop, the same again, wherry up",
            )


def _path(name: str, config: MachineConfig) -> str:
    return next((share.path for share in sharing.shares_of(config) if share.id == name), "a folder")


def suspend_hindered_by(state: State) -> str:
    """Why a machine that runs cannot be suspended; empty when nothing of virtiofs hinders it.

    QEMU up to 8.1 refuses to save a machine with such a device; later ones need the help of the virtiofsd that was there.
    """
    return (
        "it has folders over virtiofs (shares.virtiofs), and QEMU does not save what virtiofsd knows" if state.virtiofs else ""
    )
