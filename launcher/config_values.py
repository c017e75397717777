"""Values of machine.toml that are tables of their own, and the error for one that cannot be."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Final

from launcher.errors import Usage

# A whole path: of the home, of Linux and macOS, of Windows with its drive, of a network there (which is refused by name).
_WHOLE: Final = re.compile(r"~(?:[/\\].*)?|/.*|[A-Za-z]:[/\\].*|\\\\.*", re.DOTALL)


_EXAMPLES: Final = {
    "shares.folders": "for example ~/code, /srv/data or /srv/data:ro",
    "shares.hidden": "for example ~/secrets, or -~/.kube for one that is not to be hidden",
}


class BadValue(Usage):
    """A key or a value that cannot be; `key` is its dotted name, for the line in the file."""

    def __init__(self, key: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.key = key


@dataclass(frozen=True)
class Shares:
    """Which folders of this computer the machine has (launcher/sharing.py)."""

    home: bool = True  # the user's own, which can be written
    folders: tuple[str, ...] = ()  # more of them, each PATH or PATH:ro
    hidden: tuple[str, ...] = ()  # changes to the list of private places: PATH is one more, -PATH is none
    events: bool = True  # changes made here are told to what watches them in containers
    virtiofs: bool = False  # folders with nothing private in them are served by virtiofsd (launcher/virtiofs.py)

    def __post_init__(self) -> None:
        for entry in self.folders:
            _check_path("shares.folders", entry, split_mode(entry)[0])
        for entry in self.hidden:
            _check_path("shares.hidden", entry, entry.removeprefix("-"))


def split_mode(entry: str) -> tuple[str, bool]:
    """The folder of PATH[:ro|:rw], and whether it is read-only."""
    for mode in (":ro", ":rw"):
        if entry.endswith(mode):
            return entry[: -len(mode)], mode == ":ro"
    return entry, False


def _check_path(key: str, entry: str, path: str) -> None:
    if not _WHOLE.fullmatch(path) or any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise BadValue(key, f"{key}: {entry!r} is no whole path.", hint=_EXAMPLES[key])


def check_kind(key: str, value: Any, kind: type[Any] | tuple[type[Any], ...]) -> None:
    """Raises BadValue for a value of another kind; True is no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        # A proxy's address may hold a password.
        shown = key if key == "network.proxy" else f"{key} = {value!r}"
        raise BadValue(key, f"{shown} has the wrong type.")


def changed_values(table: Any) -> dict[str, Any]:
    """What a dataclass of ours has beside its defaults, as TOML has it."""
    values = {item.name: getattr(table, item.name) for item in fields(table) if getattr(table, item.name) != item.default}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def table(key: str, kind: type[Any], values: dict[str, Any]) -> Any:
    """The dataclass of that table's values. Raises BadValue."""
    given: dict[str, Any] = {}
    for item in fields(kind):
        if item.name not in values:
            continue
        name, value = f"{key}.{item.name}", values[item.name]
        if isinstance(item.default, tuple):
            check_kind(name, value, list)
            for part in value:
                check_kind(name, part, str)
            value = tuple(value)
        check_kind(name, value, type(item.default))
        given[item.name] = value
    return kind(**given)
