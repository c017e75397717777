"""The machine directory: every file of a machine is a named path here, and the directory is the truth.

On the way of every proxied command: a named tuple, and what reads and writes files is imported where that is done.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from launcher import host
from launcher.errors import Damaged, NoSuchMachine, Refused, Usage, WherryError
from launcher.files import write_private

if TYPE_CHECKING:
    from launcher.config import MachineConfig
    from launcher.state import State

# A unix socket path must fit sockaddr_un: 104 bytes on macOS, 108 on Linux, the closing NUL included.
LONGEST_SOCKET: Final = 103
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


def check_name(name: str) -> str:
    """The name itself; raises Usage for one that cannot be a folder, host name and docker context on all systems."""
    if not _NAME.fullmatch(name):
        raise Usage(f"{name!r} cannot be a machine's name: letters a-z, digits and '-', at most 31.")
    return name


class MachineDir(NamedTuple):
    """The files of one machine, by name. Making one of these touches nothing."""

    name: str
    path: Path

    @property
    def config_file(self) -> Path:
        """What was decided: `config.MachineConfig` as TOML."""
        return self.path / "machine.toml"

    @property
    def good_config_file(self) -> Path:
        """machine.toml as it was when the machine last became ready: what `repair` goes back to."""
        return self.path / "machine.toml.good"

    @property
    def forwards_file(self) -> Path:
        """Forwards that a user made by hand, a list of texts: `wherry port add`."""
        return self.path / "forwards.json"

    @property
    def addresses_file(self) -> Path:
        """Addresses of this computer on which something was published, a list of texts: keeper/ports/aliases.py."""
        return self.path / "addresses.json"

    @property
    def client_key(self) -> Path:
        """The private ed25519 key that logs in."""
        return self.path / "id_ed25519"

    @property
    def host_key(self) -> Path:
        """The guest's private ed25519 host key, made here and pinned from the first connection."""
        return self.path / "host_ed25519"

    @property
    def data_disk(self) -> Path:
        """All that survives: images, containers, volumes, logins."""
        return self.path / "data.qcow2"

    @property
    def seed_dir(self) -> Path:
        """What fw_cfg hands to the guest; 0700, its files 0600."""
        return self.path / "seed"

    @property
    def serial_log(self) -> Path:
        """What the guest said on its console; bounded, the older half in serial.log.1."""
        return self.path / "serial.log"

    @property
    def qemu_log(self) -> Path:
        """QEMU's own words of the last start."""
        return self.path / "qemu.log"

    @property
    def keeper_log(self) -> Path:
        """The keeper's diary; bounded."""
        return self.path / "keeper.log"

    @property
    def shares_log(self) -> Path:
        """The diary of the process that serves shared folders; bounded."""
        return self.path / "shares.log"

    @property
    def virtiofsd_log(self) -> Path:
        """The words of the virtiofsds of the last start."""
        return self.path / "virtiofsd.log"

    @property
    def owners_dir(self) -> Path:
        """What is remembered of owners and modes in shared folders, a file for each."""
        return self.path / "owners"

    @property
    def state_file(self) -> Path:
        """What is running now: `State` as JSON."""
        return self.path / "state.json"

    @property
    def rollback_file(self) -> Path:
        """What `upgrade --rollback` goes back to: {"iso": sha256}."""
        return self.path / "rollback.json"

    @property
    def suspend_file(self) -> Path:
        """What the saved memory of a suspended machine belongs to: `saved.Saved` as JSON; its "iso" is that SHA-256."""
        return self.path / "suspend.json"

    @property
    def memory_file(self) -> Path:
        """The saved memory: `ramfile`."""
        return self.path / "suspend.zst"

    @property
    def suspended_disk(self) -> Path:
        """The data disk's name while the machine is suspended: nothing starts from it."""
        return self.path / "data.suspended.qcow2"

    @property
    def lock_file(self) -> Path:
        """Held by the keeper for as long as it lives."""
        return self.path / "lock"

    @property
    def qemu_lock_file(self) -> Path:
        """Held by QEMU, which inherits the descriptor: taken means that a QEMU of this machine runs, whoever started it."""
        return self.path / "lock.qemu"

    @property
    def start_lock_file(self) -> Path:
        """Held by a command while it looks for the keeper and starts one."""
        return self.path / "lock.start"

    @property
    def config_lock_file(self) -> Path:
        """Held by a command from the look at machine.toml to its change."""
        return self.path / "lock.config"

    @property
    def emulation_told(self) -> Path:
        """There once the user was told that this machine runs without hardware acceleration."""
        return self.path / "emulation-told"

    @property
    def context_declined(self) -> Path:
        """There once the user removed the docker context: `up` makes none then."""
        return self.path / "context-declined"

    @property
    def run_dir(self) -> Path:
        """Sockets: short, 0700, outside the machine directory, whose path may be long."""
        return host.current().run_base() / _sha256(os.fsencode(os.path.realpath(self.path)))[:8]

    @property
    def control_socket(self) -> Path:
        return host.current().endpoints().path(self.run_dir, self.name, "control")

    @property
    def engine_socket(self) -> Path:
        """The Docker API, for any client on this computer."""
        return host.current().endpoints().path(self.run_dir, self.name, "docker")

    @property
    def qmp_socket(self) -> Path:
        return self.run_dir / "qmp.sock"

    @property
    def serial_socket(self) -> Path:
        return self.run_dir / "serial.sock"

    def virtiofs_socket(self, number: int) -> Path:
        """Where QEMU meets the virtiofsd of one share."""
        return self.run_dir / f"fs{number}.sock"

    def exists(self) -> bool:
        return self.path.is_dir()

    @property
    def repair_hint(self) -> str:
        return f"wherry repair{'' if self.name == 'default' else ' ' + self.name}"

    def read_config(self) -> MachineConfig:
        """Raises NoSuchMachine when there is none, Refused when a newer wherry wrote it, WherryError when it is damaged."""
        try:
            text = self.config_file.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            if not self.exists():
                raise NoSuchMachine(
                    f"there is no machine {self.name!r}.", hint=f"wherry up{'' if self.name == 'default' else ' ' + self.name}"
                ) from error
            raise Damaged("its machine.toml is lost.", hint=self.repair_hint) from error
        except (OSError, ValueError) as error:
            raise Damaged(f"{self.config_file} cannot be read: {_words(error)}", hint=self.repair_hint) from error
        from launcher import configfile

        return configfile.read(text, self.config_file, self.name)

    def write_config(self, wanted: MachineConfig) -> None:
        """Write what differs from machine.toml as it is; comments and order of an existing file stay."""
        from launcher import configfile

        text = self.config_file.read_text(encoding="utf-8") if self.config_file.exists() else None
        write_private(self.config_file, configfile.rewritten(text, wanted).encode())

    def read_state(self) -> State:
        """What was last written; the empty state when there is none. Raises Damaged for garbage, Refused for a newer file."""
        from launcher.state import State

        try:
            data = json.loads(self.state_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, RecursionError) as error:
            raise Damaged(f"{self.state_file} cannot be read: {_words(error)}", hint=self.repair_hint) from error
        try:
            return State.from_json(data)
        except Damaged as error:
            raise Damaged(f"{self.state_file} is damaged: {error.message}", hint=self.repair_hint) from error

    def check_state(self) -> None:
        """Raises Refused when a newer wherry wrote state.json; any other damage is for who reads it."""
        try:
            self.read_state()
        except Refused:
            raise
        except WherryError:
            return

    def write_state(self, state: State) -> None:
        write_private(self.state_file, json.dumps(state.to_json(), indent=1).encode())

    def keeper_lives(self) -> bool:
        """Whether a keeper of the machine is there, by its lock; it may not listen yet, or no more."""
        return host.current().lock_taken(self.lock_file)

    def qemu_runs(self) -> bool:
        """Whether a QEMU of this machine lives, by its lock; no pid is trusted for this."""
        if self.qemu_lock_file.exists():
            return host.current().lock_taken(self.qemu_lock_file)
        if not self.keeper_log.exists():
            return False  # never started
        from launcher import identity

        return bool(identity.qemus(self.path))  # somebody removed the lock file

    def remove_sockets(self) -> None:
        """What a killed keeper left; the caller knows that nobody of this machine lives."""
        known = self.control_socket, self.engine_socket, self.qmp_socket, self.serial_socket
        for socket in (*known, *self.run_dir.glob("fs*.sock")):
            if host.current().endpoints().left(socket):
                socket.unlink(missing_ok=True)
        try:
            self.run_dir.rmdir()
        except OSError:
            pass  # not there, or somebody put something else into it

    def disk_used(self) -> int:
        """Bytes that the machine takes on this computer."""
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                try:
                    found = os.lstat(os.path.join(folder, name))  # noqa: PTH118  a path may go while we look
                except OSError:
                    continue
                total += found.st_blocks * 512 if hasattr(found, "st_blocks") else found.st_size
        return total


def _sha256(data: bytes) -> str:
    """By Python's own code: hashlib loads OpenSSL first, 5 ms of every proxied command."""
    for module in ("_sha2", "_sha256"):  # from Python 3.12 on, and before
        try:
            return str(importlib.import_module(module).sha256(data).hexdigest())
        except (ImportError, AttributeError):
            continue
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
