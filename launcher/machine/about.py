"""Which versions run, and how old they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher import __version__, floors, host, images, store
from launcher.errors import WherryError
from launcher.images import source
from launcher.machine.inspect import engine_version

if TYPE_CHECKING:
    from launcher.images import Iso


def versions(name: str) -> dict[str, Any]:
    """Of wherry, the machine's engine and its ISO, each None when it cannot be known; and what is too old in the ISO."""
    try:
        engine = engine_version(name)
    except WherryError:
        engine = None
    iso, arch = _iso(name)
    release = release_iso(arch)
    judged = judged_iso(iso) if iso else None
    newer = judged_iso(release) if release and (iso is None or release.sha256 != iso.sha256) else None
    warnings = warnings_of(judged or newer)
    return {"wherry": __version__, "engine": engine, "iso": judged, "release_iso": newer, "warnings": warnings}


def _iso(name: str) -> tuple[Iso | None, str]:
    """The machine's, and its architecture; None when there is no machine or the ISO cannot be read."""
    arch = host.native_arch()
    try:
        config = store.machine(name).read_config()
        arch = config.arch
        return images.by_sha(config.iso), arch
    except WherryError:
        return None, arch


def release_iso(arch: str) -> Iso | None:
    """The one that a new machine would be made with, as far as it is on this computer."""
    try:
        return source.next_without_network(arch)
    except WherryError:
        return None


def judged_iso(iso: Iso) -> dict[str, Any]:
    """An ISO with its age and what in it is below its floor."""
    judgement = floors.judge(iso.manifest)
    return {
        "sha256": iso.sha256,
        "version": iso.version,
        "arch": iso.arch,
        "built": judgement.built,
        "days": judgement.days,
        "old": judgement.old,
        "below": [str(below) for below in judgement.below],
    }


def warnings_of(judged: dict[str, Any] | None) -> list[str]:
    """One line for each thing that is too old."""
    if judged is None:
        return []
    old = [f"the ISO is {judged['days']} days old; newer ones mend more: wherry upgrade"] if judged["old"] else []
    return old + [f"in the ISO, {below}: wherry upgrade" for below in judged["below"]]
