"""Whether an ISO is what its manifest says, and whether what was taken out of it is what is in it."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import isofile
from launcher.errors import IsoProblem
from launcher.images import cache, manifest, pins
from launcher.report import Reporter

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Verdict:
    """What was found out about one ISO; without problems it is good."""

    name: str  # its file, or what it is called in the cache
    arch: str
    version: str
    sha256: str  # of what is there
    expected: str
    problems: tuple[str, ...]
    unlocked: bool  # built from other packages than its lock named


def in_cache(sha256: str, report: Reporter) -> Verdict:
    """All that is kept of an ISO: hash, size, list of contents, kernel, initrd, place of the root."""
    home = cache.folder() / sha256
    try:
        iso = cache.by_sha(sha256)
        said = manifest.read(home / cache.MANIFEST)
        found = digest(iso.path, report)
        problems = [] if found == sha256 == said["sha256"] else [f"the ISO's SHA-256 is {found}"]
        problems += _parts(iso.path) if not problems else []
        problems += _sbom(home, said)
        return _verdict(sha256[:12], said, found, problems)
    except (IsoProblem, OSError) as error:
        text = error.message if isinstance(error, IsoProblem) else str(error)
        return Verdict(sha256[:12], "", "", "", sha256, (text.rstrip("."),), False)


def file(path: Path, report: Reporter) -> Verdict:
    """A file, against the manifest beside it, else against what this release is pinned to. Raises IsoProblem without either."""
    beside = path.with_suffix(".json")
    try:
        found = digest(path, report)
        if beside.exists():
            said = manifest.read(beside)
            problems = [] if found == said["sha256"] else [f"its SHA-256 is {found}, {beside.name} says {said['sha256']}"]
            volume = isofile.volume_arch(path)
            if volume != said["architecture"]:
                problems.append(f"its volume says {volume or 'nothing of wherry'}, {beside.name} says {said['architecture']}")
            return _verdict(str(path), said, found, problems)
    except OSError as error:
        raise IsoProblem(f"{path} cannot be read: {error}.") from error
    arch = next((arch for arch, pin in pins.pinned().items() if pin == found), None)
    if arch is None:
        raise IsoProblem(
            f"there is nothing to verify {path} against: no {beside.name} beside it, and it is not this release's.",
            detail=f"SHA-256 {found}", hint=f"Put {beside.name} beside it.",
        )  # fmt: skip
    return Verdict(str(path), arch, "", found, found, (), False)


def _verdict(name: str, said: dict[str, Any], found: str, problems: list[str]) -> Verdict:
    return Verdict(
        name, said["architecture"], said["version"], found, said["sha256"], tuple(problems), said.get("unlocked") is True
    )  # fmt: skip


def digest(path: Path, report: Reporter) -> str:
    """SHA-256 of a file, with progress. Raises OSError."""
    made = hashlib.sha256()
    total, done = path.stat().st_size, 0
    with path.open("rb") as source:
        while data := source.read(_CHUNK):
            made.update(data)
            done += len(data)
            report.progress("verify", done, max(total, done))
    return made.hexdigest()


def _parts(iso: Path) -> list[str]:
    """What QEMU is given beside the ISO itself. What is not there is made again when it is wanted."""
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        for name, inside in (("vmlinuz", isofile.KERNEL), ("initrd", isofile.INITRD)):
            copy, fresh = iso.with_name(name), Path(folder) / name
            if copy.exists():
                isofile.extract(iso, inside, fresh)
                if copy.read_bytes() != fresh.read_bytes():
                    problems.append(f"its copy {copy} is not what is in the ISO")
    extent = iso.with_name(cache.EXTENT)
    if extent.exists():
        offset, size = isofile.root_extent(iso)
        try:
            noted = cache.read_json(extent)
        except ValueError:
            noted = {}
        if noted != {"offset": offset, "size": size}:
            problems.append(f"{extent} is not where the root lies in the ISO")
    return problems


def _sbom(home: Path, said: dict[str, Any]) -> list[str]:
    kept = home / cache.SBOM
    if kept.exists() and not manifest.sbom_fits(said, kept.read_bytes()):
        return [f"{kept} is not the one that the manifest names"]
    return []


def find(text: str) -> str:
    """The SHA-256 of the ISO in the cache that begins so. Raises IsoProblem when there is none, or more than one."""
    found = [sha for sha in cache.names() if sha.startswith(text.lower())] if text else []
    if len(found) == 1:
        return found[0]
    many = (
        f"{len(found)} ISOs in the cache begin with {text!r}." if found else f"there is neither a file {text} nor such an ISO."
    )
    raise IsoProblem(many, hint="wherry iso list")


def lock_differences(said: dict[str, Any], lock_folder: Path) -> list[str]:
    """How the packages in an ISO differ from those of the lock that a build would use now; a line each."""
    packages = {(item["name"], item["architecture"]): item for item in said.get("packages", []) if isinstance(item, dict)}
    best: list[str] | None = None
    for lock in sorted(lock_folder.glob(f"{said.get('architecture')}-*.lock")):
        lines = []
        for row in lock.read_text(encoding="utf-8").splitlines():
            fields = row.split()
            if len(fields) != 5 or row.startswith("#"):
                continue
            name, version, arch, _, sha256 = fields
            there = packages.get((name, arch))
            if there is None or there.get("sha256") != sha256:
                lines.append(f"{name} {there.get('version') if there else '-'} -> {version}")
        best = lines if best is None or len(lines) < len(best) else best
    return best or []
