"""The manifest of an ISO: what its build says of it (iso/README.md), read with suspicion."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from launcher.config import ARCHES
from launcher.errors import IsoProblem

FORMAT: Final = 1
_KINDS: Final = {"version": str, "architecture": str, "sha256": str, "size": int}


def minimal(arch: str, version: str, sha256: str, size: int) -> dict[str, Any]:
    """For an ISO that came without one."""
    return {"format": FORMAT, "version": version, "architecture": arch, "sha256": sha256, "size": size}


def read(file: Path) -> dict[str, Any]:
    """Raises IsoProblem for a file that is no manifest."""
    try:
        return parse(file.read_bytes(), str(file))
    except OSError as error:
        raise IsoProblem(f"{file} cannot be read: {error}.") from error


def parse(data: bytes, name: str) -> dict[str, Any]:
    """Raises IsoProblem for what is no manifest."""
    try:
        manifest = json.loads(data)
        if not isinstance(manifest, dict):
            raise ValueError("it is no JSON object")
    except ValueError as error:
        raise IsoProblem(f"{name} cannot be read: {error}.") from error
    if manifest.get("format") != FORMAT:
        raise IsoProblem(f"{name} has format {manifest.get('format')!r}; this wherry reads {FORMAT}.")
    wrong = [key for key, kind in _KINDS.items() if not isinstance(manifest.get(key), kind)]
    if wrong or manifest["architecture"] not in ARCHES:
        raise IsoProblem(f"{name} is no manifest of an ISO: {', '.join(wrong) or 'architecture'} is missing or wrong.")
    return manifest


def sbom_fits(manifest: dict[str, Any], sbom: bytes) -> bool:
    """Whether the list of contents is the one that the manifest names."""
    named = manifest.get("sbom")
    return isinstance(named, dict) and named.get("sha256") == hashlib.sha256(sbom).hexdigest()
