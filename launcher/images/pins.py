"""What this release is pinned to: `release.toml`, the one file with the ISO of each architecture and the addresses to ask."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.config import ARCHES
from launcher.errors import IsoProblem


@dataclass(frozen=True)
class Pin:
    """The ISO of an architecture."""

    file: str  # its name below every mirror
    sha256: str
    size: int  # bytes
    manifest: str = ""  # SHA-256 of the manifest beside it


@dataclass(frozen=True)
class Release:
    pins: dict[str, Pin]  # by architecture
    mirrors: tuple[str, ...]  # URL prefixes, in the order in which they are asked

    def urls(self, pin: Pin) -> list[str]:
        return [f"{mirror.rstrip('/')}/{pin.file}" for mirror in self.mirrors]


def file() -> Path:
    """The release's own, or the one that WHERRY_RELEASE names: a company that hands out its own ISO pins it there."""
    moved = os.environ.get("WHERRY_RELEASE")
    return Path(moved) if moved else Path(__file__).parent.parent / "release.toml"


def release() -> Release:
    """Raises IsoProblem for a file that cannot be read; WHERRY_MIRRORS stands in place of its mirrors."""
    source = file()
    try:
        values = tomllib.loads(source.read_text(encoding="utf-8"))
        pins = {arch: _pin(values["iso"][arch]) for arch in ARCHES if arch in values.get("iso", {})}
        mirrors = [str(url) for url in values.get("mirrors", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IsoProblem(f"{source} cannot be read: {error}.", hint="Install wherry again.") from error
    own = re.split(r"[\s,]+", os.environ.get("WHERRY_MIRRORS", "").strip())
    return Release(pins, tuple(filter(None, own)) or tuple(mirrors))


def pinned() -> dict[str, str]:
    """SHA-256 of the ISOs of this release, by architecture."""
    return {arch: pin.sha256 for arch, pin in release().pins.items()}


def _pin(values: dict[str, Any]) -> Pin:
    pin = Pin(values["file"], values["sha256"].lower(), values["size"], values.get("manifest", "").lower())
    if not re.fullmatch(r"[0-9a-f]{64}", pin.sha256) or not re.fullmatch(r"[\w.+-]+", pin.file) or pin.size <= 0:
        raise ValueError(f"{values} is no pin")
    return pin
