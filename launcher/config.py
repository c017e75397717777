"""What a machine is: typed, frozen, declared once. Strings are parsed here, at the edge."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from launcher import __version__, release
from launcher.errors import Usage, WherryError

CONFIG_VERSION: Final = 1
ARCHES: Final = ("amd64", "arm64")
MIB: Final = 1 << 20
GIB: Final = 1 << 30

# hosts, data-root and containerd are ours: the launcher and the image rely on them.
ENGINE_REFUSED: Final = {
    "hosts": "the engine listens on its socket only (an engine on TCP is a way into every container)",
    "data-root": "images and volumes live on the data disk",
    "containerd": "the image runs containerd itself",
}

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt])(?:i?b)?", re.IGNORECASE)
_UNITS: Final = {"k": 1 << 10, "m": MIB, "g": GIB, "t": 1 << 40}
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


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


def check_name(name: str) -> str:
    """The name itself; raises Usage for one that cannot be a folder, host name and docker context on all systems."""
    if not _NAME.fullmatch(name):
        raise Usage(f"{name!r} cannot be a machine's name: letters a-z, digits and '-', at most 31.")
    return name


@dataclass(frozen=True)
class MachineConfig:
    """What was decided for one machine; the content of its machine.toml."""

    arch: str
    cpus: int
    memory: int  # bytes
    iso: str  # SHA-256 of the ISO that the machine was made with, 64 hex digits
    disk: int = 100 * GIB  # bytes, the size the guest sees
    stop_seconds: int = 30  # what containers get to stop at power off
    accel: str = "auto"  # auto, or one of kvm hvf whpx tcg
    qemu: str = ""  # path of qemu-system-*, empty: found
    engine: dict[str, Any] = field(default_factory=dict)  # daemon.json keys over our defaults

    def __post_init__(self) -> None:
        if self.arch not in ARCHES:
            raise Usage(f"{self.arch!r} is no architecture of the machine: {' or '.join(ARCHES)}.")
        if not 1 <= self.cpus <= 255:
            raise Usage(f"cpus = {self.cpus}: 1 to 255.")
        if self.memory < 512 * MIB:
            raise Usage(f"memory = {format_size(self.memory)}: the engine needs 512M at least.")
        if self.disk < GIB:
            raise Usage(f"disk = {format_size(self.disk)}: 1G at least.")
        if not 1 <= self.stop_seconds <= 3600:
            raise Usage(f"stop_seconds = {self.stop_seconds}: 1 to 3600.")
        if self.accel not in ("auto", "kvm", "hvf", "whpx", "tcg"):
            raise Usage(f"accel = {self.accel!r}: auto, kvm, hvf, whpx or tcg.")
        for key in self.engine:
            if key in ENGINE_REFUSED:
                raise Usage(f"[engine] {key} cannot be set: {ENGINE_REFUSED[key]}.")

    def changed(self, **values: Any) -> MachineConfig:
        return replace(self, **values)


_SIZES: Final = ("memory", "disk")


def to_toml_values(config: MachineConfig) -> dict[str, Any]:
    """Plain values in the order they are written; sizes as text."""
    values: dict[str, Any] = {"version": CONFIG_VERSION, "wherry": __version__}
    for item in fields(config):
        value = getattr(config, item.name)
        values[item.name] = format_size(value) if item.name in _SIZES else value
    return values


def from_toml_values(values: dict[str, Any]) -> MachineConfig:
    """The config in a parsed machine.toml. Raises Refused when a newer wherry wrote it, WherryError when a value is wrong.

    Keys that are missing have their defaults: the file may be an older wherry's.
    """
    values = dict(values)
    version, wherry = values.pop("version", None), values.pop("wherry", None)
    known = {item.name: item for item in fields(MachineConfig)}
    newer = isinstance(version, int) and version > CONFIG_VERSION
    if newer or (not set(values) <= set(known) and release.is_newer(str(wherry or ""))):
        raise release.refused("machine.toml", wherry)
    if version != CONFIG_VERSION:
        raise WherryError(f"machine.toml has version {version!r}, this wherry reads {CONFIG_VERSION}.")
    for key in values:
        if key not in known:
            raise WherryError(f"machine.toml: unknown key {key!r}.")
    kinds = {"cpus": int, "stop_seconds": int, "engine": dict}
    for key, value in values.items():
        if not isinstance(value, kinds.get(key, str)) or isinstance(value, bool):
            raise WherryError(f"machine.toml: {key} = {value!r} has the wrong type.")
    for key in _SIZES:
        if key in values:
            values[key] = parse_size(values[key])
    try:
        return MachineConfig(**values)
    except TypeError as error:
        raise WherryError(f"machine.toml is incomplete: {error}.") from error
