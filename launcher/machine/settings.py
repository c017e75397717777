"""Every setting of a machine with its effective value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from launcher import config, config_keys, seed, store
from launcher.config import MachineConfig
from launcher.config_keys import KEYS, Key
from launcher.errors import WherryError
from launcher.machine import create
from launcher.store import MachineDir


@dataclass(frozen=True)
class Setting:
    """One line of `config show`: the value as machine.toml has or would have it, None for none."""

    key: str
    value: Any
    default: bool
    restart: bool
    later: bool
    settable: bool
    what: str


def show(name: str) -> list[Setting]:
    """Every key with its effective value. Raises NoSuchMachine, WherryError for a damaged machine.toml."""
    wanted = existing(name).read_config()
    given = config.to_toml_values(wanted)
    settings: list[Setting] = []
    for key in KEYS:
        if key.kind == "table":
            settings += _engine_settings(key, wanted)
            continue
        value, default = _effective(key.name, wanted, given)
        settings.append(Setting(key.name, value, default, key.restart, key.later, not key.changed_by, key.what))
    return settings


def get(name: str, key: str) -> Any:
    """The effective value of a key, a table for `engine`, `network` and `shares`. Raises BadValue for an unknown key,
    WherryError when there is no value."""
    parts = config_keys.path(key)
    found: dict[str, Any] = {}
    for setting in show(name):
        if setting.value is not None:
            *tables, last = config_keys.path(setting.key)
            inner = found
            for table in tables:
                inner = inner.setdefault(table, {})
            inner[last] = setting.value
    if key not in ("engine", "network", "shares"):
        config_keys.find(key)
    value: Any = found
    for part in parts:
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        raise WherryError(f"{key} is not set.", hint="wherry config show")
    return value


def _effective(name: str, wanted: MachineConfig, given: Mapping[str, Any]) -> tuple[Any, bool]:
    table, _, part = name.rpartition(".")
    if table:
        value = given.get(table, {}).get(part)
        if value is None and table == "shares":
            own = getattr(wanted.shares, part)
            return list(own) if isinstance(own, tuple) else own, True
        return value, value is None
    if name in ("cpus", "memory"):
        return given[name], given[name] == computed(name)
    if name in given:
        return given[name], name == "version"
    value = getattr(wanted, name)
    return (config.format_size(value) if name == "disk" else None if value == "" else value), True


def computed(name: str) -> Any:
    """What cpus or memory would be on this computer without being chosen."""
    return create.default_cpus() if name == "cpus" else config.format_size(create.default_memory())


def _engine_settings(key: Key, wanted: MachineConfig) -> Iterator[Setting]:
    chosen = dict(leaves(wanted.engine))
    for parts, value in leaves(seed.engine_values(wanted)):
        yield Setting(dotted(["engine", *parts]), value, parts not in chosen, key.restart, key.later, True, key.what)


def leaves(table: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name), value


def dotted(parts: list[str]) -> str:
    import tomlkit

    return ".".join(tomlkit.key(part).as_string() for part in parts)


def existing(name: str) -> MachineDir:
    """The machine's directory, which has a machine.toml. Raises NoSuchMachine, WherryError."""
    directory = store.machine(name)
    if not directory.exists() or not directory.config_file.exists():
        directory.read_config()  # says what is missing
    return directory
