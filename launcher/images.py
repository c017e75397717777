"""The guest ISOs of this computer: imported whole and checked, kept by SHA-256, taken apart once.

Layout, one folder for each ISO, which appears whole or not at all:

    <cache>/iso/<sha256>/wherry.iso      the ISO
                         manifest.json   what the build says of it
                         vmlinuz initrd  taken out of it, for QEMU's -kernel and -initrd
                         extent.json     where its root squashfs lies
                         origin.json     where it came from
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from launcher import __version__, guestfiles, isofile, store
from launcher.config import ARCHES
from launcher.errors import IsoProblem
from launcher.report import Reporter

MANIFEST_FORMAT: Final = 1

Origin = Literal["file", "checkout"]

_ISO: Final = "wherry.iso"
_MANIFEST: Final = "manifest.json"
_EXTENT: Final = "extent.json"
_ORIGIN: Final = "origin.json"
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Iso:
    """An ISO in the cache."""

    sha256: str
    arch: str
    version: str  # of wherry; "unknown" when it came without a manifest
    path: Path
    manifest: dict[str, Any]

    def kernel(self) -> Path:
        return self._part("vmlinuz", isofile.KERNEL)

    def initrd(self) -> Path:
        return self._part("initrd", isofile.INITRD)

    def root_extent(self) -> tuple[int, int]:
        """Offset and size in bytes of the root squashfs in the ISO."""
        file = self.path.with_name(_EXTENT)
        if not file.exists():
            _note_extent(self.path)
        extent = _read_json(file)
        return int(extent["offset"]), int(extent["size"])

    def _part(self, name: str, inside: str) -> Path:
        file = self.path.with_name(name)
        if not file.exists():  # made at the import; somebody tidied up since
            isofile.extract(self.path, inside, file)
        return file


def by_sha(sha256: str) -> Iso:
    """The ISO in the cache. Raises IsoProblem when it is not there or not whole."""
    folder = _folder() / sha256
    if not folder.is_dir():
        raise IsoProblem(
            f"the ISO of this machine ({sha256[:12]}) is not in the cache.",
            hint="wherry up --iso FILE, with the ISO that it was made with",
        )
    try:
        manifest = _read_json(folder / _MANIFEST)
        size = (folder / _ISO).stat().st_size
        if size != manifest["size"]:
            raise ValueError(f"{size} bytes instead of {manifest['size']}")
        return Iso(sha256, manifest["architecture"], manifest["version"], folder / _ISO, manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IsoProblem(f"the ISO in {folder} is damaged: {error}.", hint=f"Remove {folder}, then wherry up again.") from error


def resolve(arch: str, iso_file: Path | None, report: Reporter) -> Iso:
    """The ISO to make a machine with: the file given, else the newest of this version that the user imported, else the
    checkout's own. Raises IsoProblem when there is none or it does not verify."""
    if iso_file is not None:
        return import_file(iso_file, arch, "file", report)
    found = _newest_imported(arch)
    if found is not None:
        return found
    checkout = guestfiles.checkout()
    if checkout is None:
        raise IsoProblem(f"there is no ISO for {arch} here.", hint="wherry up --iso FILE")
    built = checkout / "build" / f"wherry-{arch}.iso"
    if not built.is_file():
        raise IsoProblem(f"there is no ISO for {arch} here.", hint=f"make iso{'' if arch == 'amd64' else f' ARCH={arch}'}")
    return import_file(built, arch, "checkout", report)


def import_file(file: Path, arch: str, origin: Origin, report: Reporter) -> Iso:
    """Copy an ISO into the cache, or find it there. Raises IsoProblem when it is no ISO of ours for `arch` or does not verify.

    It is checked against the manifest `FILE.json` beside it, where there is one.
    """
    try:
        known = _seen_before(file, origin)
        if known is not None and known.arch == arch:
            # Asked for again, it is the newest import.
            _write_json(known.path.with_name(_ORIGIN), _source(file, origin))
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
    _folder().mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".import-", dir=_folder()))
    try:
        source = _source(file, origin)
        sha256 = _copy(file, temporary / _ISO, report)
        size = (temporary / _ISO).stat().st_size
        if manifest is None:
            manifest = {"format": MANIFEST_FORMAT, "version": "unknown", "architecture": arch, "sha256": sha256, "size": size}
        if (sha256, size) != (manifest["sha256"], manifest["size"]):
            raise IsoProblem(
                f"{file} does not verify: its SHA-256 is {sha256}, {manifest_file.name} says {manifest['sha256']}.",
                hint="Build or fetch it again.",
            )
        _write_json(temporary / _MANIFEST, manifest)
        _write_json(temporary / _ORIGIN, source)
        isofile.extract(temporary / _ISO, isofile.KERNEL, temporary / "vmlinuz")
        isofile.extract(temporary / _ISO, isofile.INITRD, temporary / "initrd")
        _note_extent(temporary / _ISO)
        _settle(temporary, _folder() / sha256, source)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return by_sha(sha256)


def _settle(temporary: Path, folder: Path, source: dict[str, Any]) -> None:
    """Give the import its place. When the same ISO is there already it stays, unless it is damaged; what came last is noted."""
    if folder.exists():
        try:
            by_sha(folder.name)
        except IsoProblem:
            shutil.rmtree(folder)
        else:
            _write_json(folder / _ORIGIN, source)
            return
    try:
        os.rename(temporary, folder)
    except OSError:
        if not folder.exists():
            raise  # else another command imported the same bytes at the same time


def _newest_imported(arch: str) -> Iso | None:
    found: list[tuple[float, Iso]] = []
    for iso, source in _all():
        if source.get("origin") == "file" and (iso.arch, iso.version) == (arch, __version__):
            found.append((float(source.get("imported", 0)), iso))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _seen_before(file: Path, origin: Origin) -> Iso | None:
    """The ISO that was made from this very file, unchanged since: saves reading it whole at every `up`."""
    now = _source(file, origin)
    for iso, source in _all():
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


def _all() -> list[tuple[Iso, dict[str, Any]]]:
    """The whole ISOs in the cache, each with its origin; damaged ones are passed over."""
    found = []
    for folder in _folder().glob("[0-9a-f]*"):
        try:
            found.append((by_sha(folder.name), _read_json(folder / _ORIGIN)))
        except (IsoProblem, OSError, ValueError):
            continue
    return found


def _checked_manifest(file: Path) -> dict[str, Any]:
    try:
        manifest = _read_json(file)
    except (OSError, ValueError) as error:
        raise IsoProblem(f"{file} cannot be read: {error}.") from error
    if manifest.get("format") != MANIFEST_FORMAT:
        raise IsoProblem(f"{file} has format {manifest.get('format')!r}; this wherry reads {MANIFEST_FORMAT}.")
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


def _note_extent(iso: Path) -> None:
    offset, size = isofile.root_extent(iso)
    _write_json(iso.with_name(_EXTENT), {"offset": offset, "size": size})


def _folder() -> Path:
    return store.cache_dir() / "iso"


def _read_json(file: Path) -> dict[str, Any]:
    data = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"{file.name} is no JSON object")
    return data


def _write_json(file: Path, value: dict[str, Any]) -> None:
    store.write_private(file, json.dumps(value, indent=1).encode())
