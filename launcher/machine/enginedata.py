"""What the versions in an ISO mean for the data on the disk: what two differ in, and the steps that have no way back."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, Literal

LAYOUT: Final = "data layout"
_TOLD: Final = (("engine", "docker.io"), ("containerd", "containerd"), ("runc", "runc"))
# Debian's [epoch:]upstream[-revision]; what the upstream number is followed by does not count here.
_NUMBERS: Final = re.compile(r"(?:\d+:)?(?P<numbers>\d+(?:\.\d+)*)")


@dataclass(frozen=True)
class Change:
    """What differs between two ISOs, as their manifests tell it; empty when one does not."""

    what: str
    old: str
    new: str


@dataclass(frozen=True)
class Step:
    """An entry of engine-data.toml."""

    package: str
    at: str
    kind: Literal["migrates", "fresh"]
    what: str


@functools.cache
def steps() -> tuple[Step, ...]:
    text = resources.files("launcher").joinpath("engine-data.toml").read_text(encoding="utf-8")
    return tuple(Step(**entry) for entry in tomllib.loads(text)["step"])


def upward(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Step]:
    """The steps between the ISOs of these manifests after which the data cannot go back."""
    return [step for step in steps() if step.kind == "migrates" and _crosses(step, old, new)]


def downward(old: Mapping[str, Any], new: Mapping[str, Any], *, undone: bool) -> list[Step]:
    """The steps that the way from `old` to an earlier `new` would have to take back. `undone`: what is taken back is an
    upgrade, so that the disk is older than both."""
    kinds = ("migrates",) if undone else ("migrates", "fresh")
    return [step for step in steps() if step.kind in kinds and _crosses(step, new, old)]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """What a person wants to know of the difference, in the order of its weight."""
    told = [("wherry", str(old.get("version", "")), str(new.get("version", "")))]
    told += [(what, _short(_package(old, name)), _short(_package(new, name))) for what, name in _TOLD]
    told.insert(2, ("kernel", str(old.get("kernel", "")), str(new.get("kernel", ""))))
    return [Change(what, before, after) for what, before, after in told if before != after]


def engine(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("engine") or _short(_package(manifest, "docker.io")))


def _crosses(step: Step, low: Mapping[str, Any], high: Mapping[str, Any]) -> bool:
    below, above = _numbers(_package(low, step.package)), _numbers(_package(high, step.package))
    at = _numbers(step.at)
    # Without a manifest nothing is known; the ISO may be anything, and the user chose it.
    return bool(below and above) and below < at <= above


def _package(manifest: Mapping[str, Any], name: str) -> str:
    if name == LAYOUT:
        return str(manifest.get("data_layout", 1))
    if name == "docker.io" and manifest.get("engine"):
        return str(manifest["engine"])
    packages = manifest.get("packages") or []
    return next((str(package["version"]) for package in packages if package.get("name") == name), "")


def _short(version: str) -> str:
    return version.partition(":")[2] or version


def _numbers(version: str) -> tuple[int, ...]:
    found = _NUMBERS.match(version)
    return tuple(int(part) for part in found["numbers"].split(".")) if found else ()
