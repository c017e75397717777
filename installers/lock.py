"""Chooses the newest wheels that pyproject.toml allows, by pip, and pins them in wheels.toml."""

from __future__ import annotations

import json
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from installers.targets import Target
from installers.tools import BuildError, run, say
from installers.wheels import LOCK, Wheel, choice

_PROJECT: Final = Path(__file__).parent.parent / "pyproject.toml"
_HEAD: Final = "# Written by `python -m installers lock`: the wheels of each target of targets.toml, with their SHA-256.\n"
_PLATFORM: Final = {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}
# pip judges the markers of dependencies by the system that it runs on; what only another one needs is named here.
_MORE: Final = {"Windows": ["colorama>=0.4.6"]}


def renew(targets: dict[str, Target], path: Path = LOCK) -> None:
    """Writes all pins anew. Raises BuildError when a target cannot be served."""
    made = datetime.now(UTC).replace(microsecond=0)
    text = f"{_HEAD}made = {made.isoformat().replace('+00:00', 'Z')}\n"
    for target in targets.values():
        wheels = {wheel for python in target.pythons for wheel in _resolve(target, python)}
        _refuse_two_versions(target, wheels)
        say(f"{target.name}: {len(wheels)} wheels")
        text += f"\n[{target.name}]\n" + "".join(f'"{wheel.file}" = "{wheel.sha256}"\n' for wheel in sorted(wheels))
    path.write_text(text, encoding="utf-8")


def requirements(target: Target, python: str) -> list[str]:
    """What is wanted there, without markers."""
    if target.packages:
        return list(target.packages)
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": _PLATFORM[target.system],
        "platform_system": target.system,
        "os_name": "nt" if target.system == "Windows" else "posix",
    }
    declared = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    chosen = [need for need in map(Requirement, declared) if need.marker is None or need.marker.evaluate(environment)]
    for need in chosen:
        need.marker = None
    return [*map(str, chosen), *_MORE.get(target.system, [])]


def _resolve(target: Target, python: str) -> set[Wheel]:
    words = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--dry-run", "--ignore-installed"]
    found = run(
        [
            *words,
            "--report",
            "-",
            *(["--no-deps"] if target.packages else []),
            "--target",
            "nowhere",
            *choice(target, python),
            *requirements(target, python),
        ]
    )
    return {
        Wheel(item["download_info"]["url"].rpartition("/")[2], item["download_info"]["archive_info"]["hashes"]["sha256"])
        for item in json.loads(found)["install"]
    }


def _refuse_two_versions(target: Target, wheels: set[Wheel]) -> None:
    """One folder serves all Pythons of a target."""
    versions: dict[str, set[str]] = {}
    for wheel in wheels:
        versions.setdefault(wheel.name, set()).add(wheel.version)
    for name, several in versions.items():
        if len(several) > 1:
            raise BuildError(f"{target.name}: {name} comes in versions {', '.join(sorted(several))} for its Pythons")
