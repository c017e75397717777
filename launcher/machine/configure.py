"""machine.toml, changed key by key or as a whole. Comments and order stay, and nothing that cannot be is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import __version__, config, config_keys, configfile, control, engine_values, host, proc, seed, sharing, store
from launcher.config import BadValue, MachineConfig
from launcher.config_keys import KEYS
from launcher.errors import NotRunning, Refused, Usage, WherryError
from launcher.machine import create
from launcher.machine.settings import computed, dotted, existing, leaves
from launcher.store import MachineDir

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

_IN_FORCE_SECONDS = 600.0  # a machine that starts answers when it is ready


@dataclass(frozen=True)
class Change:
    """One key that is to get another value; None is our default."""

    key: str
    before: Any
    after: Any
    restart: bool
    later: bool

    @property
    def at_once(self) -> bool:
        """It holds in a machine that runs."""
        return not self.restart and not self.later


@dataclass(frozen=True)
class Plan:
    """What a change does, told before it is done."""

    directory: MachineDir
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    running: bool

    @property
    def restart(self) -> bool:
        """The machine runs, and must be started again for some of it."""
        return self.running and any(change.restart for change in self.changes)


Told = Callable[[Plan], None]


def path(name: str) -> Path:
    """The file, of a broken machine too. Raises NoSuchMachine."""
    return existing(name).config_file


def change(name: str, wanted: Mapping[str, str | None], told: Told) -> Plan:
    """Set the keys to values from a command line, None for our default; `told` hears what it does before it is done.

    All or nothing. Raises BadValue, Usage, Refused for what cannot be.
    """

    def edit(document: TOMLDocument, _now: MachineConfig) -> None:
        for key, text in wanted.items():
            _apply(document, key, text)

    return _change(name, edit, told)


def change_values(name: str, values: Callable[[MachineConfig], Mapping[str, Any]], told: Told | None) -> Plan:
    """Set keys to what `values` makes of the machine as it is, in the form of machine.toml; nobody changes it meanwhile. An
    empty list is our default. Without `told` nothing is done: what it would do."""

    def edit(document: TOMLDocument, now: MachineConfig) -> None:
        for key, made in values(now).items():
            if made == []:
                _remove(document, config_keys.path(key))
            else:
                _set(document, config_keys.path(key), made)

    return _change(name, edit, told)


def _change(name: str, edit: Callable[[TOMLDocument, MachineConfig], None], told: Told | None) -> Plan:
    directory = existing(name)
    with _locked(directory):
        now = directory.read_config()
        document = _parsed(directory.config_file.read_bytes())
        edit(document, now)
        plan = _plan(directory, now, _checked(document.as_string()))
        if told is None:
            return plan
        told(plan)
        if plan.changes:
            document["wherry"] = __version__
            store.write_private(directory.config_file, document.as_string().encode())
    _put_in_force(plan)
    return plan


def _put_in_force(plan: Plan) -> None:
    """Tell the keeper of changes that take no restart. Raises WherryError when it cannot: the file has them all the same."""
    at_once = [change.key for change in plan.changes if change.at_once and plan.running]
    shared = [key for key in at_once if key.startswith("shares.")]
    try:
        if len(at_once) > len(shared):
            control.ask_within(_IN_FORCE_SECONDS, plan.directory.control_socket, "apply")
        if shared:
            control.ask_within(_IN_FORCE_SECONDS, plan.directory.control_socket, "shares", reload=True)
    except NotRunning:
        pass  # it ended meanwhile; the next start does it
    except Usage as error:  # the keeper of an older wherry
        raise WherryError(
            "the change is written, but the machine's keeper is too old to put it in force.", hint="wherry restart"
        ) from error


def _parsed(data: bytes) -> TOMLDocument:
    import tomlkit

    return tomlkit.parse(data.decode())


def _apply(document: TOMLDocument, name: str, text: str | None) -> None:
    parts = config_keys.path(name)
    if text is None:
        if config_keys.find(name).kind == "fixed":
            raise BadValue(name, f"{name} cannot be unset.", hint=config_keys.find(name).changed_by)
        if name in ("cpus", "memory"):
            document[name] = computed(name)
        else:
            _remove(document, parts)
        return
    value = config_keys.parse(name, text)
    if config_keys.find(name).kind in ("program", "file"):
        value = str(Path(value).expanduser().absolute())
    if name == "shares.folders":
        value = [sharing.entry(*sharing.split(text)) for text in value]
    _set(document, parts, value)


def _set(document: TOMLDocument, parts: list[str], value: Any) -> None:
    import tomlkit

    inner: Any = document
    for table in parts[:-1]:
        if not isinstance(inner.get(table), dict):
            inner[table] = tomlkit.table()
        inner = inner[table]
    inner[parts[-1]] = value


def _remove(inner: Any, parts: list[str]) -> None:
    """Take a key away, and the tables that are empty then."""
    first, *rest = parts
    if not isinstance(inner, dict) or first not in inner:
        return
    if rest:
        _remove(inner[first], rest)
        if inner[first] != {}:
            return
    inner.pop(first)


def _checked(text: str) -> MachineConfig:
    """The config in the text, as a machine would read it. Raises what is wrong with it."""
    import tomllib

    wanted = config.from_toml_values(tomllib.loads(text))
    _check_engine(wanted)
    return wanted


def _check_engine(wanted: MachineConfig) -> None:
    try:
        seed.render_daemon({}, wanted)
    except WherryError as error:  # a date is TOML, but no JSON
        raise BadValue("engine", error.message) from error


def _plan(directory: MachineDir, now: MachineConfig | None, wanted: MachineConfig) -> Plan:
    from launcher import virtiofs
    from launcher.machine.stop import running
    from launcher.machine.suspend import refuse_hardware

    changes = tuple(_changes(now, wanted)) if now else ()
    names = {item.key for item in changes}
    for key in KEYS:
        if key.kind == "fixed" and key.name in names:
            raise BadValue(key.name, f"{key.name} cannot be changed.", hint=key.changed_by)
    refuse_hardware(directory, names)
    runs = running(directory)
    if runs and now is not None:
        sharing.check_change(now.shares, wanted.shares)
        if now.shares != wanted.shares:
            virtiofs.check_change(directory, now, wanted)
    return Plan(directory, changes, tuple(_notes(now, wanted, names)), runs)


def _changes(now: MachineConfig, wanted: MachineConfig) -> Iterator[Change]:
    before, after = (dict(leaves(config.to_toml_values(values))) for values in (now, wanted))
    for parts in [*after, *(parts for parts in before if parts not in after)]:
        if before.get(parts) != after.get(parts):
            name = dotted(list(parts))
            key = config_keys.find(name)
            yield Change(name, before.get(parts), after.get(parts), key.restart, key.later)


def _notes(now: MachineConfig | None, wanted: MachineConfig, changed: set[str]) -> Iterator[str]:
    """Checks against this computer, not made when a file is merely read. Raises Usage; yields what one should know."""
    if "memory" in changed:
        create.check_memory(wanted.memory)
    if "cpus" in changed and wanted.cpus > (os.cpu_count() or wanted.cpus):
        yield f"cpus = {wanted.cpus} is more than this computer has ({os.cpu_count()}): the machine will be slower, not faster"
    if "qemu" in changed and wanted.qemu and proc.find(wanted.qemu) is None:
        raise BadValue("qemu", f"qemu = {wanted.qemu!r} is no program.", hint="wherry config unset qemu")
    if any(name.startswith("engine.") for name in changed):
        engine_values.check(wanted.engine)
    if "shares.folders" in changed:
        for folder in set(wanted.shares.folders) - set(now.shares.folders if now else ()):
            sharing.check(sharing.split(folder)[0], sharing.shares_in(wanted.shares))
    if "shares.virtiofs" in changed and wanted.shares.virtiofs:
        from launcher import virtiofs

        virtiofs.check()
    if "network.ca" in changed and wanted.network.ca:
        create.check_certificates(Path(wanted.network.ca))


class Draft:
    """machine.toml in an editor: a copy in a private folder, which takes the file's place only when it can be read."""

    def __init__(self, name: str, file: Path) -> None:
        self.directory = existing(name)
        self.file = file
        self.before = self.directory.config_file.read_bytes()
        file.write_bytes(self.before)

    @property
    def unchanged(self) -> bool:
        return self.file.read_bytes() == self.before

    def check(self) -> Plan:
        """What the text does. Raises WherryError, with its line, for one that cannot be."""
        try:
            text = self.file.read_text(encoding="utf-8")
            wanted = configfile.read(text, self.file, self.directory.name)
            _check_engine(wanted)
            return _plan(self.directory, self._now(), wanted)
        except UnicodeDecodeError as error:
            raise WherryError(f"{self.file} cannot be read: {error}") from error
        except BadValue as error:
            raise Usage(
                f"{self.file}, line {configfile.line_of(text, error.key) or 1}: {error.message}", hint=error.hint
            ) from error

    def _now(self) -> MachineConfig | None:
        try:
            return configfile.read(self.before.decode(), self.directory.config_file, self.directory.name)
        except (WherryError, UnicodeDecodeError):
            return None  # it is being mended

    def save(self, plan: Plan) -> None:
        """`plan` is what `check` said of it. Raises Refused when another command or editor changed the file meanwhile."""
        with _locked(self.directory):
            if self.directory.config_file.read_bytes() != self.before:
                raise Refused(
                    f"{self.directory.config_file} was changed by somebody else meanwhile; it is left as it is now.",
                    hint="wherry config edit",
                )
            store.write_private(self.directory.config_file, self.file.read_bytes())
        _put_in_force(plan)


@contextmanager
def draft(name: str) -> Iterator[Draft]:
    """A draft that goes with its folder."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="wherry-") as folder:
        yield Draft(name, Path(folder) / "machine.toml")


@contextmanager
def _locked(directory: MachineDir) -> Iterator[None]:
    lock = host.current().lock(directory.config_lock_file, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)
