"""The systems that installers are made for, and which wheels fit them. Data: targets.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FILE: Final = Path(__file__).with_name("targets.toml")


@dataclass(frozen=True)
class Target:
    """A system with the minor versions of Python that its installer serves."""

    name: str  # linux-amd64
    system: str  # what a marker calls it: Linux, Darwin, Windows
    pythons: tuple[str, ...]  # "3.11", …
    platforms: tuple[str, ...]  # tags of wheels, without python and abi
    packages: tuple[str, ...] = ()  # requirements; none: what wherry depends on


def load() -> dict[str, Target]:
    """All of targets.toml, by name."""
    tables = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return {
        name: Target(
            name, table["system"], tuple(table["pythons"]), tuple(table["platforms"]), tuple(table.get("packages", ()))
        )
        for name, table in tables.items()
    }
