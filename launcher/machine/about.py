"""Which versions run, and how old they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher import __version__, floors, images, store
from launcher.errors import WherryError
from launcher.machine.inspect import engine_version

if TYPE_CHECKING:
    from launcher.images import Iso


def versions(name: str) -> dict[str, Any]:
    """Of wherry, the machine's engine and its ISO, each None when it cannot be known; and what is too old in the ISO."""
    try:
        engine = engine_version(name)
    except WherryError:
        engine = None
    iso = _iso(name)
    judged = judged_iso(iso) if iso else None
    warnings = warnings_of(judged) if judged else []
    return {"wherry": __version__, "engine": engine, "iso": judged, "release_iso": None, "warnings": warnings}


def _iso(name: str) -> Iso | None:
    try:
        return images.by_sha(store.machine(name).read_config().iso)
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


def warnings_of(judged: dict[str, Any]) -> list[str]:
    """One line for each thing that is too old."""
    old = [f"the ISO is {judged['days']} days old; newer ones mend more: wherry upgrade"] if judged["old"] else []
    return old + [f"in the ISO, {below}: wherry upgrade" for below in judged["below"]]
