"""The machine directory: every file of a machine is a named path here, and the directory is the truth."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from launcher import config, configfile, host
from launcher.config import MachineConfig
from launcher.errors import NoSuchMachine, Refused, Usage, WherryError
from launcher.state import State

# A unix socket path must fit sockaddr_un: 104 bytes on macOS, 108 on Linux, the closing NUL included.
LONGEST_SOCKET: Final = 103


def home() -> Path:
    """The folder that holds machines/; WHERRY_HOME moves it, and everything else, away from the user's data folder."""
    moved = os.environ.get("WHERRY_HOME")
    if moved:
        return Path(moved).absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("wherry", appauthor=False))


def cache_dir() -> Path:
    """Where ISOs are kept."""
    if os.environ.get("WHERRY_HOME"):
        return home() / "cache"
    import platformdirs

    return Path(platformdirs.user_cache_dir("wherry", appauthor=False))


def write_private(path: Path, data: bytes) -> None:
    """Write a 0600 file whole or not at all: a temporary name beside it, synced, renamed."""
    import tempfile

    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class MachineDir:
    """The files of one machine, by name. Making one of these touches nothing."""

    name: str
    path: Path

    @property
    def config_file(self) -> Path:
        """What was decided: `config.MachineConfig` as TOML."""
        return self.path / "machine.toml"

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
    def state_file(self) -> Path:
        """What is running now: `State` as JSON."""
        return self.path / "state.json"

    @property
    def rollback_file(self) -> Path:
        """What `upgrade --rollback` goes back to: {"iso": sha256}."""
        return self.path / "rollback.json"

    @property
    def suspend_file(self) -> Path:
        """What a suspended machine resumes with: {"iso": sha256}."""
        return self.path / "suspend.json"

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
    def run_dir(self) -> Path:
        """Sockets: short, 0700, outside the machine directory, whose path may be long."""
        import hashlib

        key = hashlib.sha256(os.fsencode(os.path.realpath(self.path))).hexdigest()[:8]
        return host.current().run_base() / key

    @property
    def control_socket(self) -> Path:
        return self.run_dir / "control.sock"

    @property
    def qmp_socket(self) -> Path:
        return self.run_dir / "qmp.sock"

    @property
    def serial_socket(self) -> Path:
        return self.run_dir / "serial.sock"

    def exists(self) -> bool:
        return self.path.is_dir()

    def read_config(self) -> MachineConfig:
        """Raises NoSuchMachine when there is none, Refused when a newer wherry wrote it, WherryError when it is damaged."""
        try:
            text = self.config_file.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            if not self.exists():
                raise NoSuchMachine(
                    f"there is no machine {self.name!r}.", hint=f"wherry up{'' if self.name == 'default' else ' ' + self.name}"
                ) from error
            raise WherryError(f"machine {self.name!r} has no machine.toml.", hint=f"wherry delete {self.name}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise WherryError(f"{self.config_file} cannot be read: {error}") from error
        return configfile.read(text, self.config_file, self.name)

    def write_config(self, wanted: MachineConfig) -> None:
        """Write what differs from machine.toml as it is; comments and order of an existing file stay."""
        text = self.config_file.read_text(encoding="utf-8") if self.config_file.exists() else None
        write_private(self.config_file, configfile.rewritten(text, wanted).encode())

    def read_state(self) -> State:
        """What was last written; the empty state when there is none. Raises WherryError for a damaged or newer file."""
        try:
            data = json.loads(self.state_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return State()
        except (OSError, ValueError) as error:
            raise WherryError(f"{self.state_file} cannot be read: {error}") from error
        return State.from_json(data)

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

    def qemu_runs(self) -> bool:
        """Whether a QEMU of this machine lives, by its lock; no pid is trusted for this."""
        if not self.qemu_lock_file.exists():
            return False
        descriptor = host.current().lock(self.qemu_lock_file, wait=False)
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def wait_for_keeper(self) -> None:
        """Until no keeper is left: the lock is the last thing that one gives back."""
        descriptor = host.current().lock(self.lock_file, wait=True)
        if descriptor is not None:
            os.close(descriptor)

    def disk_used(self) -> int:
        """Bytes that the machine takes on this computer."""
        total = 0
        for file in self.path.rglob("*"):
            found = file.lstat()
            total += found.st_blocks * 512 if hasattr(found, "st_blocks") else found.st_size
        return total


def machine(name: str) -> MachineDir:
    """The directory of the machine of that name, whether it exists or not. Raises Usage for a name that cannot be one."""
    return MachineDir(config.check_name(name), home() / "machines" / name)


def machines() -> list[MachineDir]:
    """All machines, by name. A folder that is no machine of ours is not listed; a damaged machine is."""
    folder = home() / "machines"
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        try:
            if path.is_dir() and not path.name.startswith("."):
                found.append(MachineDir(config.check_name(path.name), path))
        except Usage:
            continue
    return found


def isos_needed(directory: MachineDir) -> set[str]:
    """SHA-256 of every ISO that the machine, its way back or its suspended state needs. Raises WherryError when unknown."""
    needed = {directory.read_config().iso}
    for file in (directory.rollback_file, directory.suspend_file):
        try:
            needed.add(str(json.loads(file.read_text(encoding="utf-8"))["iso"]))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WherryError(f"{file} cannot be read: {error!r}") from error
    return needed


def create(name: str, wanted: MachineConfig, fill: Callable[[MachineDir], None]) -> MachineDir:
    """A new machine directory, 0700, with its config and what `fill` puts there; it appears whole or not at all.

    Raises Refused when there is one of that name already.
    """
    import shutil
    import tempfile

    directory = machine(name)
    directory.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=directory.path.parent))
    try:
        made = MachineDir(name, temporary)
        made.write_config(wanted)
        made.seed_dir.mkdir(mode=0o700)
        fill(made)
        try:
            os.rename(temporary, directory.path)
        except OSError as error:
            raise Refused(f"machine {name!r} exists already.") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return directory


def remove(directory: MachineDir) -> None:
    """Delete the machine for good; the caller has asked and holds no open file in it. The rename makes it go at once."""
    import secrets
    import shutil

    doomed = directory.path.with_name(f".{directory.name}.{secrets.token_hex(4)}.deleted")
    run_dir = directory.run_dir
    os.rename(directory.path, doomed)
    shutil.rmtree(doomed)
    shutil.rmtree(run_dir, ignore_errors=True)
