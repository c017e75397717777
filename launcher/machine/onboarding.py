"""wherry.toml: what a project wants of a machine. Read and judged whole, compared with what is, put in force.

    requires = ">=0.1"                     # this wherry's version (PEP 440)
    cpus = 4                               # and other settings, by the names of `wherry config`
    memory = "8G"
    images = ["postgres:16"]               # pulled when they are not there
    compose = "compose.yaml"               # started

    [shares]
    folders = [".", "../assets:ro"]        # beside wherry.toml, or ~/…, or whole

    [engine]
    registry-mirrors = ["https://mirror.example.com"]

It says only what it names: every other setting, and every other shared folder, stays as its user has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from launcher import __version__, config, config_keys, configfile, control, engine_values, host, privacy, seed, sharing, store
from launcher.config import BadValue, MachineConfig, Shares
from launcher.config_values import check_kind
from launcher.errors import EngineFailed, MissingOnHost, Usage, WherryError
from launcher.machine import configure, create, run, shares
from launcher.machine.configure import Plan, Told
from launcher.machine.create import UpOptions
from launcher.machine.settings import dotted, leaves
from launcher.report import Reporter

_OWN: Final = ("requires", "images", "compose")
# What a project may decide. What opens this computer further than a machine does by itself is the user's to choose: programs,
# addresses, the ssh agent, private places, the home where they took it back.
_SETTINGS: Final = (
    "cpus", "memory", "stop_seconds", "idle_suspend", "idle_suspend_containers", "network.proxy", "shares.home",
    "shares.folders", "shares.events",
)  # fmt: skip
_TABLES: Final = ("engine", "network", "shares")
_EMPTY: Final = tuple((table,) for table in _TABLES)
# Of docker's reference format, distribution/reference, what can neither be an option nor leave the path of a request.
_IMAGE: Final = re.compile(r"[a-zA-Z0-9][\w.:/@-]*")


@dataclass(frozen=True)
class Wish:
    """A wherry.toml that this wherry can follow; `settings` are keys of machine.toml with values as it has them."""

    place: str  # as errors name it
    settings: Mapping[str, Any]
    folders: tuple[str, ...]  # whole paths, with :ro or without it
    images: tuple[str, ...]
    compose: Path | None

    def of(self, now: MachineConfig) -> dict[str, Any]:
        """The settings for a machine that is so now."""
        wanted = dict(self.settings)
        if self.folders:
            home = now.changed(shares=replace(now.shares, home=wanted.get("shares.home", now.shares.home)))
            wanted["shares.folders"] = shares.having(home, self.folders)
        return wanted


def read(source: str) -> Wish:
    """FILE, or URL#sha256=HEX. Raises Usage, with the place, for what cannot be; MissingOnHost when a newer wherry is wanted;
    WherryError when the address does not give it."""
    from launcher import images

    named = images.parse_source(source, "wherry.toml")
    if named.file is None:
        from launcher.images import textfile
        from launcher.images.web import without_password

        return _parsed(textfile.fetch(named), without_password(named.url), "")
    try:
        return _parsed(named.file.read_bytes(), source, str(named.file.absolute().parent))
    except OSError as error:
        raise Usage(f"{source} cannot be read: {error.strerror}.", hint="wherry up -f FILE, or URL#sha256=…") from error


def _parsed(data: bytes, place: str, folder: str) -> Wish:
    """`folder`: what relative paths begin at, empty where there is none."""
    import tomllib

    try:
        text = data.decode()
        values = tomllib.loads(text)
    except ValueError as error:  # no UTF-8, no TOML
        raise Usage(f"{place}: {error}.") from error
    try:
        _check_version(values.pop("requires", None), place)
        return _wish(values, place, folder)
    except BadValue as error:
        line = _line(text, error.key)
        raise Usage(f"{place}{f', line {line}' if line else ''}: {error.message}", hint=error.hint) from error


def _line(text: str, key: str) -> int | None:
    """Of the key, or of the table that it is written in."""
    while key and (line := configfile.line_of(text, key)) is None:
        key = key.rpartition(".")[0]
    return line if key else None


def _check_version(requires: object, place: str) -> None:
    """First of all: a file for a newer wherry may have keys that this one does not know."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    if requires is None:
        return
    try:
        wanted = SpecifierSet(requires if isinstance(requires, str) else "?")
    except InvalidSpecifier:
        raise BadValue(
            "requires", f"requires = {requires!r} names no versions.", hint='for example requires = ">=1.0"'
        ) from None
    if not wanted.contains(__version__, prereleases=True):
        from launcher.machine import program

        raise MissingOnHost(f"{place} wants wherry {requires}; this is wherry {__version__}.", hint=program.ways().upgrade)


def _wish(values: dict[str, Any], place: str, folder: str) -> Wish:
    wanted_images, compose = _images(values.pop("images", [])), _compose(values.pop("compose", None), folder)
    _check_keys(values)
    folders = _folders(values.get("shares", {}), folder)
    wanted = config.from_toml_values({**_ANY_MACHINE, **values})
    _check_engine(wanted)
    create.check_memory(wanted.memory if "memory" in values else None)
    if values.get("shares", {}).get("home") is True:
        raise BadValue("shares.home", "shares.home can only be false: whether the home is shared is for the user to decide.")
    settings = {dotted(list(parts)): value for parts, value in leaves(values) if parts not in _EMPTY}
    return Wish(place, settings, folders, wanted_images, compose)


# What a machine.toml must have beside the settings of a file.
_ANY_MACHINE: Final = {"version": config.CONFIG_VERSION, "arch": "amd64", "cpus": 1, "memory": "1G", "iso": ""}


def _check_keys(values: dict[str, Any]) -> None:
    """Raises BadValue for the first key that a project has no say in, or that there is not."""
    known = [key.name for key in config_keys.KEYS]
    for parts, value in leaves(values):
        name = dotted(list(parts))
        if name in _SETTINGS or (parts[0] == "engine" and len(parts) > 1) or (name in _TABLES and value == {}):
            continue
        if name in _TABLES:
            raise BadValue(name, f"{name} is a table: [{name}].")
        if name in known:
            hint = config_keys.find(name).changed_by or f"wherry config set {name} …"
            raise BadValue(name, f"{name} is for the user to decide, not for a project's file.", hint=hint)
        near = config.unknown_key(name, [*_OWN, *_SETTINGS])
        raise BadValue(name, near.message, hint=f"known are {', '.join([*_OWN, *_SETTINGS])} and engine.KEY")


def _check_engine(wanted: MachineConfig) -> None:
    for key in wanted.engine:
        config_keys.check_engine_key(key)
    engine_values.check(wanted.engine)
    try:
        seed.render_daemon({}, wanted)
    except WherryError as error:  # a date is TOML, but no JSON
        raise BadValue("engine", error.message) from error


def _images(value: object) -> tuple[str, ...]:
    for name in value if isinstance(value, list) else [None]:
        if not isinstance(name, str) or not _IMAGE.fullmatch(name):
            raise BadValue(
                "images", f"images: {name if name is not None else value!r} is no image.", hint='for example ["postgres:16"]'
            )
    assert isinstance(value, list)
    return tuple(dict.fromkeys(value))


def _compose(value: object, folder: str) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise BadValue("compose", f"compose = {value!r} is no file.")
    path = Path(_whole("compose", value, folder))
    if not path.is_file():
        raise BadValue("compose", f"there is no compose file {sharing.shown(str(path))}.")
    return path


def _folders(table: dict[str, Any], folder: str) -> tuple[str, ...]:
    """Taken out of [shares], where they may be relative. Raises BadValue for one that cannot be shared, or that only its owner
    shares."""
    entries = table.pop("folders", [])
    check_kind("shares.folders", entries, list)
    for entry in entries:
        check_kind("shares.folders", entry, str)
    found = sharing.shares_in(Shares(home=table.get("home") is not False))
    return tuple(_folder(entry, folder, found) for entry in entries)


def _folder(entry: str, folder: str, found: list[sharing.Share]) -> str:
    try:
        path, read_only = sharing.split(entry)
        path = _whole("shares.folders", path, folder)
        _check_private(path)
        sharing.check(path, found)
    except BadValue:
        raise
    except WherryError as error:
        raise BadValue("shares.folders", error.message, hint=error.hint) from error
    return path + (":ro" if read_only else "")


def _check_private(path: str) -> None:
    real = host.current().real_path
    for place in privacy.hidden_in(Shares()):
        if sharing.is_within(real(path), real(place)):
            shown = sharing.shown(path)
            raise BadValue(
                "shares.folders", f"{shown} is a private place, which no file of a project shares.",
                hint=f"To share it all the same: wherry share add {shown}",
            )  # fmt: skip


def _whole(key: str, path: str, folder: str) -> str:
    found = sharing.whole(path, folder)
    if not Path(found).is_absolute():
        raise BadValue(key, f"{key}: {path!r} is no whole path, and a file from an address is in no folder.", hint="~/…")
    return found


def have(name: str, wish: Wish, options: UpOptions, report: Reporter) -> bool:
    """Have a machine to compare with: made where there is none (True), resumed where it is suspended, since what is suspended
    keeps its settings."""
    from launcher import saved
    from launcher.machine import keepers

    directory = store.machine(name)
    if not directory.exists():
        values = wish.settings
        memory = config.parse_size(values["memory"]) if "memory" in values else None
        chosen = replace(
            options, cpus=values.get("cpus"), memory=memory, share=wish.folders, no_home=values.get("shares.home") is False,
        )  # fmt: skip
        return create.make(name, chosen, report)
    create.change(directory, options, report)
    if saved.is_suspended(directory) or keepers.status(directory) == "suspended":
        run.up(name, UpOptions(), report)
    return False


def difference(name: str, wish: Wish) -> Plan:
    """What `apply` would change. Raises as it does."""
    return _change(name, wish, None)


def apply(name: str, wish: Wish) -> Plan:
    """Change the settings; what takes no restart holds at once in a machine that runs. Raises Usage, Refused, WherryError."""
    return _change(name, wish, lambda _plan: None)


def _change(name: str, wish: Wish, told: Told | None) -> Plan:
    try:
        return configure.change_values(name, wish.of, told)
    except BadValue as error:
        raise Usage(f"{wish.place}: {error.message}", hint=error.hint) from error


def missing_images(name: str, wish: Wish) -> list[str]:
    """Those that the engine of the machine, which runs, does not have. Raises EngineFailed, NotRunning."""
    return [image for image in wish.images if not _has(name, image)]


def _has(name: str, image: str) -> bool:
    path = f"/images/{quote(image, safe='/:@')}/json"
    answer = control.ask(store.machine(name).control_socket, "engine", method="GET", path=path)
    if answer["status"] in (200, 404):
        return bool(answer["status"] == 200)
    raise EngineFailed(f"the engine answered {answer['status']} for {image}: {answer['body'].strip()}", status=answer["status"])
