"""An ISO file of the user, or of a build: copied into the cache whole and checked."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from launcher import isofile
from launcher.config import ARCHES
from launcher.errors import IsoProblem
from launcher.images import cache
from launcher.images.cache import Iso, Origin
from launcher.report import Reporter

_CHUNK: Final = 1 << 20


def import_file(file: Path, arch: str, origin: Origin, report: Reporter) -> Iso:
    """Copy an ISO into the cache, or find it there. Raises IsoProblem when it is no ISO of ours for `arch` or does not verify.

    It is checked against the manifest `FILE.json` beside it, where there is one.
    """
    try:
        known = _seen_before(file, origin)
        if known is not None and known.arch == arch:
            # Asked for again, it is the newest import.
            cache.write_json(known.path.with_name(cache.ORIGIN), _source(file, origin))
            return known
        return _import(file, arch, origin, report)
    except OSError as error:
        raise IsoProblem(f"{file} cannot be imported: {error}.") from error


def _import(file: Path, arch: str, origin: Origin, report: Reporter) -> Iso:
    manifest_file = file.with_suffix(".json")
    manifest = _checked_manifest(manifest_file) if manifest_file.exists() else None
    found = manifest["architecture"] if manifest else isofile.arch_of_volume(file)
    if found != arch:
        raise IsoProblem(f"{file} is for {found}, not for {arch}.", hint=f"--arch {found}")
    cache.folder().mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".import-", dir=cache.folder()))
    try:
        source = _source(file, origin)
        sha256 = _copy(file, temporary / cache.ISO, report)
        size = (temporary / cache.ISO).stat().st_size
        if manifest is None:
            manifest = {
                "format": cache.MANIFEST_FORMAT,
                "version": "unknown",
                "architecture": arch,
                "sha256": sha256,
                "size": size,
            }
        if (sha256, size) != (manifest["sha256"], manifest["size"]):
            raise IsoProblem(
                f"{file} does not verify: its SHA-256 is {sha256}, {manifest_file.name} says {manifest['sha256']}.",
                hint="Build or fetch it again.",
            )
        cache.write_json(temporary / cache.MANIFEST, manifest)
        cache.write_json(temporary / cache.ORIGIN, source)
        isofile.extract(temporary / cache.ISO, isofile.KERNEL, temporary / "vmlinuz")
        isofile.extract(temporary / cache.ISO, isofile.INITRD, temporary / "initrd")
        cache.note_extent(temporary / cache.ISO)
        cache.settle(temporary, cache.folder() / sha256, source)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return cache.by_sha(sha256)


def _seen_before(file: Path, origin: Origin) -> Iso | None:
    """The ISO that was made from this very file, unchanged since: saves reading it whole at every `up`."""
    now = _source(file, origin)
    for iso, source in cache.everything():
        if all(source.get(key) == now[key] for key in ("origin", "path", "mtime_ns", "size")):
            return iso
    return None


def _source(file: Path, origin: Origin) -> dict[str, Any]:
    found = file.stat()
    return {
        "origin": origin,
        "path": os.path.realpath(file),
        "mtime_ns": found.st_mtime_ns,
        "size": found.st_size,
        "imported": time.time(),
    }


def _checked_manifest(file: Path) -> dict[str, Any]:
    try:
        manifest = cache.read_json(file)
    except (OSError, ValueError) as error:
        raise IsoProblem(f"{file} cannot be read: {error}.") from error
    if manifest.get("format") != cache.MANIFEST_FORMAT:
        raise IsoProblem(f"{file} has format {manifest.get('format')!r}; this wherry reads {cache.MANIFEST_FORMAT}.")
    kinds = {"version": str, "architecture": str, "sha256": str, "size": int}
    wrong = [key for key, kind in kinds.items() if not isinstance(manifest.get(key), kind)]
    if wrong or manifest["architecture"] not in ARCHES:
        raise IsoProblem(f"{file} is no manifest of an ISO: {', '.join(wrong) or 'architecture'} is missing or wrong.")
    return manifest


def _copy(file: Path, target: Path, report: Reporter) -> str:
    """Copy with progress and return the SHA-256 of what was copied. Never a link: a build may write over its output."""
    digest = hashlib.sha256()
    total, done = file.stat().st_size, 0
    with file.open("rb") as source, target.open("xb") as copy:
        while data := source.read(_CHUNK):
            digest.update(data)
            copy.write(data)
            done += len(data)
            report.progress("iso", done, max(total, done))
        copy.flush()
        os.fsync(copy.fileno())
    target.chmod(0o444)
    return digest.hexdigest()
