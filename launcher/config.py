"""What a machine is: typed, frozen, declared once. Strings are parsed here, at the edge."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Final

from launcher import __version__, release
from launcher.config_values import BadValue as BadValue
from launcher.config_values import Shares as Shares
from launcher.config_values import changed_values, check_kind, table
from launcher.errors import Usage, WherryError

CONFIG_VERSION: Final = 1
ARCHES: Final = ("amd64", "arm64")
ACCELS: Final = ("auto", "kvm", "hvf", "whpx", "tcg")
CLIENTS: Final = ("auto", "host", "guest")
IDLE_MINUTES: Final = 5
MIB: Final = 1 << 20
GIB: Final = 1 << 30

# hosts, data-root and containerd are ours: the launcher and the image rely on them.
ENGINE_REFUSED: Final = {
    "hosts": "the engine listens on its socket only (an engine on TCP is a way into every container)",
    "data-root": "images and volumes live on the data disk",
    "containerd": "the image runs containerd itself",
}

# Of the host's loopback, for the sshds of all machines: closed to containers as a whole (launcher/qemu/sshport.py). Outside of
# every system's range for outgoing connections, and of the one that the guest chooses published ports from.
SSH_PORTS: Final = range(19800, 19928)

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt])(?:i?b)?", re.IGNORECASE)
_UNITS: Final = {"k": 1 << 10, "m": MIB, "g": GIB, "t": 1 << 40}
# QEMU's own network between the computer and the machine.
_LINK: Final = "10.0.2.0/24"
LOCALHOST: Final = ("127.0.0.1", "::1")  # a name that means both
_PRIVATE: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")  # RFC 1918


def parse_size(text: str) -> int:
    """Bytes from "8G", "512M", "1.5g"; units are binary. A bare number is refused: nobody can know its unit."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        example = f" (write {text.strip()}G)" if text.strip().isdigit() else " (write 8G or 512M)"
        raise Usage(f"{text!r} is not a size{example}.")
    return int(float(match["number"]) * _UNITS[match["unit"].lower()])


def format_size(size: int) -> str:
    """The shortest form that parse_size reads back to the same number."""
    for unit in ("t", "g", "m", "k"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit.upper()}"
    return f"{size}B"


@dataclass(frozen=True)
class Network:
    """How the machine reaches the world. Empty is our default."""

    proxy: str = ""  # URL, as this computer sees it
    ca: str = ""  # path of a PEM file on this computer
    subnet: str = ""  # CIDR; reserved: checked and kept, not used yet

    def __post_init__(self) -> None:
        if self.proxy:
            _check_proxy(self.proxy)
        if self.subnet:
            _check_subnet(self.subnet)


def _check_proxy(text: str) -> None:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or any(character.isspace() or not character.isprintable() for character in text):
        # The value is not repeated: it may hold a password.
        raise BadValue("network.proxy", "network.proxy is no proxy's address: http://HOST:PORT or https://HOST:PORT.")


def _check_access(access: str | tuple[int, ...]) -> None:
    if access in ("all", "none"):
        return
    hint = "for example: wherry config set host_access none, or 8080,5432"
    if isinstance(access, str) or not access:
        raise BadValue("host_access", f"host_access = {_plain(access)!r}: all, none, or a list of ports.", hint=hint)
    wrong = [port for port in access if not 1 <= port <= 65535]
    if wrong or len(access) > 100:
        what = f"{wrong[0]} is no port" if wrong else "100 ports at most"
        raise BadValue("host_access", f"host_access: {what}.", hint=hint)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_address(text: str) -> None:
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise BadValue(
            "publish_address", f"publish_address: {text!r} is no IP address.", hint="for example 0.0.0.0, or 127.0.0.1,::1"
        ) from None


def _check_subnet(text: str) -> None:
    import ipaddress

    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise BadValue("network.subnet", f"network.subnet = {text!r}: {error}.", hint="for example 10.77.0.0/16") from None
    private = any(
        network.subnet_of(ipaddress.IPv4Network(block)) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    )
    if not private or not 8 <= network.prefixlen <= 24:
        raise BadValue("network.subnet", f"network.subnet = {text!r}: a private network of /8 to /24 is wanted.")
    if network.overlaps(ipaddress.IPv4Network(_LINK)):
        raise BadValue("network.subnet", f"network.subnet = {text!r} holds {_LINK}, which links the machine to this computer.")


@dataclass(frozen=True)
class MachineConfig:
    """What was decided for one machine; the content of its machine.toml."""

    arch: str
    cpus: int
    memory: int  # bytes
    iso: str  # SHA-256 of the ISO that the machine was made with, 64 hex digits
    disk: int = 100 * GIB  # bytes, the size the guest sees
    stop_seconds: int = 30  # what containers get to stop at power off
    idle_suspend: int | str = "auto"  # minutes without any use after which the machine is suspended; 0: never
    idle_suspend_containers: bool = False  # also while containers run, when nobody uses them
    accel: str = "auto"  # auto, or one of kvm hvf whpx tcg
    qemu: str = ""  # path of qemu-system-*, empty: found
    host_access: str | tuple[int, ...] = "all"  # what containers reach of this computer: all, none, or these ports
    ssh_agent: bool = False  # containers may use this computer's
    client: str = "auto"  # the docker client of wherry docker, run and compose: one of CLIENTS
    publish_address: str = ""  # where a port without an address is published, with commas when several; empty: LOCALHOST
    network: Network = field(default_factory=Network)
    shares: Shares = field(default_factory=Shares)
    engine: dict[str, Any] = field(default_factory=dict)  # daemon.json keys over our defaults

    def __post_init__(self) -> None:
        if self.arch not in ARCHES:
            raise BadValue("arch", f"{self.arch!r} is no architecture of the machine: {' or '.join(ARCHES)}.")
        if not 1 <= self.cpus <= 255:
            raise BadValue("cpus", f"cpus = {self.cpus}: 1 to 255.")
        if self.memory < 512 * MIB:
            raise BadValue("memory", f"memory = {format_size(self.memory)}: the engine needs 512M at least.")
        if self.disk < GIB:
            raise BadValue("disk", f"disk = {format_size(self.disk)}: 1G at least.")
        if not 1 <= self.stop_seconds <= 3600:
            raise BadValue("stop_seconds", f"stop_seconds = {self.stop_seconds}: 1 to 3600.")
        if self.idle_suspend != "auto" and not (isinstance(self.idle_suspend, int) and 0 <= self.idle_suspend <= 10080):
            raise BadValue("idle_suspend", f"idle_suspend = {self.idle_suspend}: auto, or 0 (never) to 10080 minutes.")
        if self.accel not in ACCELS:
            raise BadValue("accel", f"accel = {self.accel!r}: {', '.join(ACCELS[:-1])} or {ACCELS[-1]}.")
        _check_access(self.host_access)
        if self.client not in CLIENTS:
            raise BadValue("client", f"client = {self.client!r}: {', '.join(CLIENTS[:-1])} or {CLIENTS[-1]}.")
        for key in self.engine:
            if key in ENGINE_REFUSED:
                raise BadValue(f"engine.{key}", f"[engine] {key} cannot be set: {ENGINE_REFUSED[key]}.")

        for address in self.published:
            _check_address(address)

    @property
    def published(self) -> tuple[str, ...]:
        """The addresses of this computer on which a port is published whose user named none."""
        return tuple(part.strip() for part in self.publish_address.split(",")) if self.publish_address else LOCALHOST

    def idle_minutes(self, accel: str) -> int:
        """After how many minutes without any use the machine is suspended under this accelerator; 0: never.

        What was seen to be suspended and resumed fifty times in a row, with nothing lost, is a machine that is emulated.
        """
        if isinstance(self.idle_suspend, int):
            return self.idle_suspend
        return IDLE_MINUTES if accel.startswith("tcg") else 0

    def changed(self, **values: Any) -> MachineConfig:
        return replace(self, **values)


_SIZES: Final = ("memory", "disk")
_TABLES: Final[dict[str, type[Any]]] = {"network": Network, "shares": Shares}
_NUMBERS: Final = ("cpus", "stop_seconds")
_SWITCHES: Final = ("ssh_agent", "idle_suspend_containers")
_KINDS: Final[dict[str, type[Any] | tuple[type[Any], ...]]] = {
    **dict.fromkeys(_NUMBERS, int),
    **dict.fromkeys(_SWITCHES, bool),
    "idle_suspend": (int, str),
    "engine": dict,
    **dict.fromkeys(_TABLES, dict),
}


def to_toml_values(config: MachineConfig) -> dict[str, Any]:
    """Plain values in the order they are written, less those that are our default anyway; sizes as text."""
    values: dict[str, Any] = {"version": CONFIG_VERSION, "wherry": __version__}
    for item in fields(config):
        value = getattr(config, item.name)
        if value == _default(item):
            continue
        if item.name in _TABLES:
            value = changed_values(value)
        values[item.name] = format_size(value) if item.name in _SIZES else _plain(value)
    return values


def _default(item: Any) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default


def from_toml_values(values: dict[str, Any]) -> MachineConfig:
    """The config in a parsed machine.toml. Raises Refused when a newer wherry wrote it, WherryError when it is incomplete,
    BadValue for a key that is not known or a value that cannot be.

    Keys that are missing have their defaults: the file may be an older wherry's.
    """
    values = dict(values)
    version, wherry = values.pop("version", None), values.pop("wherry", None)
    unknown = _unknown(values)
    newer = isinstance(version, int) and version > CONFIG_VERSION
    if newer or (unknown and release.is_newer(str(wherry or ""))):
        raise release.refused("machine.toml", wherry)
    if version != CONFIG_VERSION:
        raise BadValue("version", f"machine.toml has version {version!r}, this wherry reads {CONFIG_VERSION}.")
    if unknown:
        raise unknown
    if isinstance(values.get("host_access"), list):
        values["host_access"] = _ports(values["host_access"])
    for key, value in values.items():
        check_kind(key, value, tuple if isinstance(value, tuple) else _KINDS.get(key, str))
    for key in _SIZES:
        if key in values:
            values[key] = _size(key, values[key])
    for key, kind in _TABLES.items():
        if key in values:
            values[key] = table(key, kind, values[key])
    missing = [key for key in ("arch", "cpus", "memory", "iso") if key not in values]
    if missing:
        raise WherryError(f"machine.toml is incomplete: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.")
    return MachineConfig(**values)


def _size(key: str, text: str) -> int:
    try:
        return parse_size(text)
    except Usage as error:
        raise BadValue(key, f"{key}: {error.message}") from None


def _ports(values: list[Any]) -> tuple[int, ...]:
    for value in values:
        check_kind("host_access", value, int)
    return tuple(values)


def _unknown(values: dict[str, Any]) -> BadValue | None:
    """The error for the first key that this wherry does not know."""
    known = [item.name for item in fields(MachineConfig)]
    given = list(values)
    for name, kind in _TABLES.items():
        known += [f"{name}.{item.name}" for item in fields(kind)]
        inner = values.get(name)
        given += [f"{name}.{key}" for key in inner] if isinstance(inner, dict) else []
    return next((unknown_key(key, known) for key in given if key not in known), None)


def unknown_key(key: str, known: list[str]) -> BadValue:
    """The error for a key that there is not, with the nearest one that there is."""
    import difflib

    near = difflib.get_close_matches(key, known, n=1)
    return BadValue(key, f"unknown key {key!r}{f', {near[0]} is the nearest' if near else ''}.", hint="wherry config --help")
