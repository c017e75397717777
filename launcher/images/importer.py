"""An ISO file of the user, or of a build: copied into the cache whole and checked."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any, Final

from launcher import isofile
from launcher.errors import IsoProblem
from launcher.images import cache, manifest
from launcher.images.cache import Iso, Origin
from launcher.report import Reporter

_CHUNK: Final = 1 << 20


def import_file(file: Path, arch: str | None, origin: Origin, report: Reporter) -> Iso:
    """Copy an ISO into the cache, or find it there. Raises IsoProblem when it is no ISO of ours for `arch` (None: for any) or
    does not verify.

    It is checked against the manifest `FILE.json` beside it, where there is one. No network is used.
    """
    try:
        known = _seen_before(file, origin)
        if known is not None and arch in (None, known.arch):
            # Asked for again, it is the newest import.
            cache.note_origin(known.path.parent, _source(file, origin))
            return known
        with cache.locked(report):
            return _import(file, arch, origin, report)
    except OSError as error:
        raise IsoProblem(f"{file} cannot be imported: {error}.") from error


def _import(file: Path, arch: str | None, origin: Origin, report: Reporter) -> Iso:
    beside = file.with_suffix(".json")
    said = manifest.read(beside) if beside.exists() else None
    found = said["architecture"] if said else isofile.arch_of_volume(file)
    if arch not in (None, found):
        raise IsoProblem(f"{file} is for {found}, not for {arch}.", hint=f"--arch {found}")
    with cache.new() as temporary:
        source = _source(file, origin)
        sha256 = _copy(file, temporary / cache.ISO, report)
        size = (temporary / cache.ISO).stat().st_size
        if said is None:
            said = manifest.minimal(found, "unknown", sha256, size)
        if (sha256, size) != (said["sha256"], said["size"]):
            raise IsoProblem(
                f"{file} does not verify: its SHA-256 is {sha256}, {beside.name} says {said['sha256']}.",
                hint="Build or fetch it again.",
            )
        volume = isofile.volume_arch(temporary / cache.ISO)
        if volume != found:
            raise IsoProblem(f"{file} is no ISO for {found}: its volume says {volume or 'nothing of wherry'}.")
        return cache.take_in(temporary, said, source, _sbom(file, said))


def _sbom(file: Path, said: dict[str, Any]) -> bytes | None:
    beside = file.with_suffix(".cdx.json")
    data = beside.read_bytes() if beside.exists() else b""
    return data if manifest.sbom_fits(said, data) else None


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
    return digest.hexdigest()
