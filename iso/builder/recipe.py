"""recipe.toml as typed values; a key that nobody reads is an error, so that a typing mistake cannot hide."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from builder.log import BuildError


@dataclass(frozen=True)
class Recipe:
    """What the image is made of. The meaning of each key is told in recipe.toml itself."""

    suite: str
    engine_suite: str
    packages: list[str]
    engine: dict[str, list[str]]
    emulators: dict[str, list[str]]
    loader: dict[str, list[str]]
    kernel: dict[str, str]
    skip: list[str]
    keep: dict[str, list[str]]
    prune: list[str]
    directories: dict[str, str]
    links: dict[str, str]
    files: dict[str, str]
    private: list[str]
    modules: dict[str, list[str]]
    modules_never: list[str]
    modules_initrd: list[str]
    modules_firmware: list[str]
    tools: list[str]
    sources: list[str]
    tools_cross: dict[str, list[str]]
    tools_skip: list[str]
    hello_applets: list[str]


def read_recipe(path: Path) -> Recipe:
    """Reads and checks the recipe."""
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise BuildError(f"{path.name}: {error}") from error
    known = {field.name for field in fields(Recipe)}
    wrong = sorted(known ^ data.keys())
    if wrong:
        raise BuildError(f"{path.name}: unknown or missing: {', '.join(wrong)}")
    return Recipe(**data)
