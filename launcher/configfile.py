"""The text of a machine.toml: read with the line of what is wrong, rewritten with its comments and order."""

from __future__ import annotations

import re
from pathlib import Path

from launcher.config import BadValue, MachineConfig, from_toml_values, to_toml_values
from launcher.errors import Damaged


def read(text: str, file: Path, name: str) -> MachineConfig:
    """The config in the text of machine `name`'s machine.toml; an error names the file, and the line where there is one."""
    import tomllib

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Damaged(
            f"{file} cannot be read: {error}.", hint=f"wherry config edit {name}, or: wherry repair {name}"
        ) from error
    try:
        return from_toml_values(values)
    except BadValue as error:
        line = line_of(text, error.key)
        place = f"{file}, line {line}" if line else str(file)
        raise Damaged(f"{place}: {error.message}", hint=f"wherry config edit {name}, or: wherry repair {name}") from error


def line_of(text: str, key: str) -> int | None:
    """The line, from 1, on which a dotted key stands in a TOML text; None when it is written in some rarer way."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        heading = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
        if heading:
            table = heading[1].replace('"', "")
            found = table
        else:
            name = line.partition("=")[0].strip().replace('"', "").replace("'", "")
            found = f"{table}.{name}" if table else name
        if found == key:
            return number
    return None


def rewritten(text: str | None, wanted: MachineConfig) -> str:
    """The text with what differs from `wanted` changed and nothing else; None for a new file. Raises WherryError for one that
    holds no config."""
    import tomlkit

    document = tomlkit.document() if text is None else tomlkit.parse(text)
    values = to_toml_values(wanted)
    before = {} if text is None else to_toml_values(from_toml_values(document.unwrap()))
    before["wherry"] = document.get("wherry")
    for key in before.keys() - values.keys():
        document.pop(key, None)  # our default again
    for key, value in values.items():
        if value != before.get(key):
            document[key] = value
    return tomlkit.dumps(document).rstrip() + "\n"
