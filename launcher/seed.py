"""The seed: what a machine's guest gets at every start, as files for fw_cfg. The contract is provisioning/README.md.

Values go into the environment file quoted, never into a shell's text by concatenation; the files are 0600.
"""

from __future__ import annotations

import copy
import io
import json
import re
import tarfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from launcher import guestfiles, sharing, store
from launcher.config import MIB, SSH_PORTS, MachineConfig
from launcher.errors import Damaged, WherryError
from launcher.sharing import Share
from launcher.store import MachineDir

CONTRACT: Final = 1
DATA_LAYOUT: Final = 1
# The serial that launcher.qemu.command gives to the data disk.
DATA_SERIAL: Final = "wherry-data"

# What a start may do with the data disk.
USE: Final = "use"
REPAIR: Final = "repair"
READ_ONLY: Final = "readonly"
ACTIONS: Final = (USE, REPAIR, READ_ONLY)

# slirp's name for this computer, and what is not fetched through a proxy.
HOST: Final = "10.0.2.2"
NO_PROXY: Final = "localhost,127.0.0.0/8,::1,10.0.2.0/24,host.docker.internal,host.wherry.internal"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

_FW_CFG: Final = "opt/wherry/"
_FILES: Final = ("env", "authorized_keys", "ssh_host_ed25519_key", "daemon.json", "shares", "provision.tar")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# The log drivers that know the options in our defaults.
_SIZED_LOGS: Final = ("local", "json-file")


def write(
    machine: MachineDir, config: MachineConfig, holds: str, action: str = USE, virtiofs: Collection[str] = ()
) -> tuple[tuple[str, str], ...]:
    """Write the files and return (fw_cfg name, path from the machine's folder) of each, in a fixed order.

    `holds` is how much data the disk has now (`disks.Holds`), `action` what the guest is to do with it;
    `virtiofs` are the ids of the shares that come over it.

    Raises WherryError when a key is missing or a value cannot be passed on.
    """
    files = {
        "env": render_env(env_values(machine, config, holds, action)),
        "authorized_keys": _key(machine.client_key.with_name(machine.client_key.name + ".pub")),
        "ssh_host_ed25519_key": _key(machine.host_key),
        "daemon.json": render_daemon(_default_daemon(), config),
        "shares": render_shares(sharing.shares_of(config), virtiofs),
        "provision.tar": pack(guestfiles.provisioning(), certificates(config)),
    }
    machine.seed_dir.mkdir(mode=0o700, exist_ok=True)
    for name, data in files.items():
        store.write_private(machine.seed_dir / name, data)
    return tuple((_FW_CFG + name, f"{machine.seed_dir.name}/{name}") for name in files)


def again(machine: MachineDir, config: MachineConfig, holds: str) -> tuple[tuple[str, str], ...]:
    """The same for a guest that has read them long ago, and goes on: as they are, unless one is lost."""
    names = [path.name for path in machine.seed_dir.glob("[!.]*")]
    if set(names) >= set(_FILES):
        return tuple((_FW_CFG + name, f"{machine.seed_dir.name}/{name}") for name in _FILES)
    return write(machine, config, holds)


def env_values(machine: MachineDir, config: MachineConfig, holds: str, action: str) -> dict[str, str | int]:
    return {
        "WHERRY_CONTRACT": CONTRACT,
        "WHERRY_MACHINE": machine.name,
        "WHERRY_HOSTNAME": "wherry" if machine.name == "default" else f"wherry-{machine.name}",
        "WHERRY_DATA_SERIAL": DATA_SERIAL,
        "WHERRY_DATA_LAYOUT": DATA_LAYOUT,
        "WHERRY_DATA_HOLDS": holds,
        "WHERRY_DATA_ACTION": action,
        "WHERRY_STOP_SECONDS": config.stop_seconds,
        "WHERRY_SSH_PORTS": f"{SSH_PORTS.start}-{SSH_PORTS.stop - 1}",
        "WHERRY_HOST_ACCESS": host_access(config),
        "WHERRY_SSH_AGENT": "on" if config.ssh_agent else "off",
    }


def host_access(config: MachineConfig) -> str:
    """As the guest has it: all, none, or ports with commas between them."""
    access = config.host_access
    return access if isinstance(access, str) else ",".join(str(port) for port in access)


def render_env(values: dict[str, str | int]) -> bytes:
    """One NAME='value' a line. Raises WherryError for a control character: no value of ours has one, and a line break would
    make a line of its own."""
    lines = []
    for name, value in values.items():
        text = str(value)
        if _CONTROL.search(text):
            raise WherryError(f"{name} = {text!r} has a control character.")
        # Within single quotes POSIX sh reads every character as itself (2.2.2), so only the quote has to be stepped around.
        quoted = text.replace("'", "'\\''")
        lines.append(f"{name}='{quoted}'\n")
    return "".join(lines).encode("utf-8")


def render_shares(shares: Iterable[Share], virtiofs: Collection[str] = ()) -> bytes:
    """What the guest is to mount, one a line, tabs between: id, ro or rw, the path there, other paths there. `virtiofs` are
    the ids of those for which it has a device.

    A share that lies in another one is not mounted itself. Raises WherryError for a control character in a path.
    """
    lines = []
    for share in shares:
        mode = "virtiofs-" * (share.id in virtiofs) + ("ro" if share.read_only else "rw")
        fields = share.id, mode, share.guest, *share.aliases
        wrong = next((field for field in fields if _CONTROL.search(field)), None)
        if wrong is not None:
            raise WherryError(f"{wrong!r} has a control character in its name, and cannot be shared.", hint="Rename it.")
        lines += ["\t".join(fields) + "\n"] if not share.inside else []
    return "".join(lines).encode("utf-8", "surrogateescape")


def render_daemon(defaults: dict[str, Any], config: MachineConfig) -> bytes:
    """dockerd's daemon.json: our defaults, over them the machine's [engine]. The same values give the same bytes."""
    laid = laid_over(defaults, config)
    try:
        return json.dumps(laid, indent=1, sort_keys=True).encode() + b"\n"
    except TypeError as error:  # TOML has dates, JSON has none
        raise WherryError(f"[engine] holds a value that daemon.json cannot: {error}.") from error


def engine_values(config: MachineConfig) -> dict[str, Any]:
    """What daemon.json will hold."""
    return laid_over(_default_daemon(), config)


def laid_over(defaults: dict[str, Any], config: MachineConfig) -> dict[str, Any]:
    return overlaid(with_proxy(with_cache_bound(defaults, config.disk), config.network.proxy), config.engine)


def with_proxy(defaults: dict[str, Any], proxy: str) -> dict[str, Any]:
    """The engine fetches through it, but not from this computer. One on this computer's loopback is 10.0.2.2 in the guest."""
    if not proxy:
        return defaults
    parts = urlsplit(proxy)
    if parts.hostname in _LOOPBACK:
        login, at, _ = parts.netloc.rpartition("@")
        port = f":{parts.port}" if parts.port else ""
        proxy = parts._replace(netloc=f"{login}{at}{HOST}{port}").geturl()
    return {**defaults, "proxies": {"http-proxy": proxy, "https-proxy": proxy, "no-proxy": NO_PROXY}}


def certificates(config: MachineConfig) -> bytes:
    """What the machine is to trust beside the usual; empty for nothing. Raises WherryError when the file cannot be read."""
    if not config.network.ca:
        return b""
    try:
        return Path(config.network.ca).read_bytes()
    except OSError as error:
        raise WherryError(
            f"network.ca = {config.network.ca!r} cannot be read: {error.strerror}.", hint="wherry config unset network.ca"
        ) from error


def with_cache_bound(defaults: dict[str, Any], disk: int) -> dict[str, Any]:
    """The build cache gets a tenth of the disk. `defaultKeepStorage` is the name that all engines since 19.03 know."""
    bounded = copy.deepcopy(defaults)
    collector = bounded.setdefault("builder", {}).setdefault("gc", {"enabled": True})
    collector["defaultKeepStorage"] = f"{disk // 10 // MIB}MB"
    return bounded


def overlaid(defaults: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """`wanted` over `defaults`: a key replaces ours; where both hold a table, its keys replace ours one by one, no deeper."""
    result = dict(defaults)
    driver = wanted.get("log-driver")
    if driver is not None and driver not in _SIZED_LOGS:
        # Options belong to their driver, and dockerd refuses those that a driver does not know.
        result.pop("log-opts", None)
    if "host-gateway-ips" in wanted:  # dockerd takes one or the other
        result.pop("host-gateway-ip", None)
    for key, value in wanted.items():
        ours = result.get(key)
        result[key] = {**ours, **value} if isinstance(ours, dict) and isinstance(value, dict) else value
    return result


def pack(folder: Path, trusted: bytes = b"") -> bytes:
    """boot.sh, boot.d/*.sh and, unless empty, ca.pem as ustar. The same content gives the same bytes: sorted, nothing of the
    host but their text."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        _add(archive, "boot.sh", _read(folder / "boot.sh"))
        _add(archive, "boot.d", None)
        for path in sorted((folder / "boot.d").glob("*.sh")):
            _add(archive, f"boot.d/{path.name}", _read(path))
        if trusted:
            _add(archive, "ca.pem", trusted)
    return output.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes | None) -> None:
    """A script, or a folder when there is no data. A TarInfo is born with time, owner and group 0."""
    entry = tarfile.TarInfo(name)
    entry.mode = 0o755
    if data is None:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    else:
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


def _default_daemon() -> dict[str, Any]:
    path = guestfiles.provisioning() / "daemon.json"
    try:
        found: dict[str, Any] = json.loads(_read(path))
    except ValueError as error:
        raise WherryError(f"{path} is damaged: {error}.", hint="Install wherry again.") from error
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WherryError(f"a part of wherry is missing: {error}.", hint="Install wherry again.") from error


def _key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Damaged(f"the machine has lost its key {path.name}: {error.strerror}.", hint="wherry repair") from error
