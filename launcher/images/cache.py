"""The ISOs in the cache: kept by SHA-256, taken apart once.

Layout, one folder for each ISO, which appears whole or not at all:

    <cache>/iso/<sha256>/wherry.iso      the ISO
                         manifest.json   what the build says of it
                         vmlinuz initrd  taken out of it, for QEMU's -kernel and -initrd
                         extent.json     where its root squashfs lies
                         origin.json     where it came from
                         sbom.cdx.json   what is in it, where that came along

Whoever changes the cache holds <cache>/iso.lock. What a killed command leaves begins with a dot and is no ISO.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from launcher import files, host, isofile, store
from launcher.errors import IsoProblem, Refused
from launcher.report import Reporter

Origin = Literal["file", "url", "release", "checkout"]

ISO: Final = "wherry.iso"
MANIFEST: Final = "manifest.json"
EXTENT: Final = "extent.json"
ORIGIN: Final = "origin.json"
SBOM: Final = "sbom.cdx.json"
IMPORT_PREFIX: Final = ".import-"


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
        file = self.path.with_name(EXTENT)
        if not file.exists():
            note_extent(self.path)
        extent = read_json(file)
        return int(extent["offset"]), int(extent["size"])

    def _part(self, name: str, inside: str) -> Path:
        file = self.path.with_name(name)
        if not file.exists():  # made at the import; somebody tidied up since
            isofile.extract(self.path, inside, file)
        return file


def by_sha(sha256: str) -> Iso:
    """The ISO in the cache. Raises IsoProblem when it is not there or not whole."""
    home = folder() / sha256
    if not home.is_dir():
        raise IsoProblem(
            f"the ISO of this machine ({sha256[:12]}) is not in the cache.",
            hint="wherry iso import FILE, with the ISO that it was made with",
        )
    try:
        manifest = read_json(home / MANIFEST)
        size = (home / ISO).stat().st_size
        if size != manifest["size"]:
            raise ValueError(f"{size} bytes instead of {manifest['size']}")
        return Iso(sha256, manifest["architecture"], manifest["version"], home / ISO, manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IsoProblem(f"the ISO in {home} is damaged: {error}.", hint=f"Remove {home}, then wherry up again.") from error


@contextmanager
def locked(report: Reporter, *, wait: bool = True) -> Iterator[None]:
    """The right to change the cache, for one command at a time; what a killed one left of an import goes first.

    Raises Refused when another command has it and we do not `wait`.
    """
    folder().mkdir(parents=True, exist_ok=True)
    lock_file = folder().with_suffix(".lock")
    lock = host.current().lock(lock_file, wait=False)
    if lock is None and not wait:
        raise Refused("another command fetches or imports an ISO.", hint="Try again when it is done.")
    if lock is None:
        report.note("another command fetches or imports an ISO; waiting for it")
        lock = host.current().lock(lock_file, wait=True)
    try:
        for left in folder().glob(f"{IMPORT_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        if lock is not None:
            os.close(lock)


@contextmanager
def new() -> Iterator[Path]:
    """A folder for an ISO that is about to be taken in; the caller holds the lock."""
    temporary = Path(tempfile.mkdtemp(prefix=IMPORT_PREFIX, dir=folder()))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def take_in(temporary: Path, manifest: dict[str, Any], source: dict[str, Any], sbom: bytes | None = None) -> Iso:
    """Take the ISO in the folder apart and give it its place. Its hash has been compared with the manifest's by the caller."""
    iso = temporary / ISO
    host.current().write_protect(iso)
    write_json(temporary / MANIFEST, manifest)
    write_json(temporary / ORIGIN, source)
    if sbom is not None:
        store.write_private(temporary / SBOM, sbom)
    isofile.extract(iso, isofile.KERNEL, temporary / "vmlinuz")
    isofile.extract(iso, isofile.INITRD, temporary / "initrd")
    note_extent(iso)
    _settle(temporary, folder() / manifest["sha256"], source)
    return by_sha(manifest["sha256"])


def _settle(temporary: Path, home: Path, source: dict[str, Any]) -> None:
    """When the same ISO is there already it stays, unless it is damaged; what came last is noted."""
    if home.exists():
        try:
            by_sha(home.name)
        except IsoProblem:
            host.current().remove_tree(home)
        else:
            note_origin(home, source)
            return
    host.current().rename(temporary, home)


def note_origin(home: Path, source: dict[str, Any]) -> None:
    """Write down where the ISO came from this time. What a killed command left of that goes first: its folder stays."""
    files.sweep(home)
    write_json(home / ORIGIN, source)


def names() -> list[str]:
    """The SHA-256 of every ISO in the cache, the damaged ones too."""
    return sorted(home.name for home in folder().glob("[0-9a-f]*") if len(home.name) == 64 and home.is_dir())


def origin(sha256: str) -> dict[str, Any]:
    """Where the ISO came from; empty when that is not known."""
    try:
        return read_json(folder() / sha256 / ORIGIN)
    except (OSError, ValueError):
        return {}


def everything() -> list[tuple[Iso, dict[str, Any]]]:
    """The whole ISOs in the cache, each with its origin; damaged ones are passed over."""
    found = []
    for home in folder().glob("[0-9a-f]*"):
        try:
            found.append((by_sha(home.name), read_json(home / ORIGIN)))
        except (IsoProblem, OSError, ValueError):
            continue
    return found


def note_extent(iso: Path) -> None:
    offset, size = isofile.root_extent(iso)
    write_json(iso.with_name(EXTENT), {"offset": offset, "size": size})


def folder() -> Path:
    return store.cache_dir() / "iso"


def read_json(file: Path) -> dict[str, Any]:
    data = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"{file.name} is no JSON object")
    return data


def write_json(file: Path, value: dict[str, Any]) -> None:
    store.write_private(file, json.dumps(value, indent=1).encode())
