"""What a wheel says of itself."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from installers.tools import BuildError


@dataclass(frozen=True, order=True)
class Metadata:
    """Out of METADATA (core metadata specification); `license` may be free text or empty."""

    name: str
    version: str
    license: str


def read(wheel: Path) -> Metadata:
    """Raises BuildError for a file that is no wheel."""
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA") and name.count("/") == 1]
        if len(found) != 1:
            raise BuildError(f"{wheel.name} is no wheel")
        head = HeaderParser().parsestr(archive.read(found[0]).decode("utf-8", "replace"))
    classified = [line.rpartition(" :: ")[2] for line in head.get_all("Classifier", []) if line.startswith("License :: OSI")]
    stated = head.get("License-Expression") or " or ".join(classified) or (head.get("License") or "").partition("\n")[0]
    return Metadata(head["Name"], head["Version"], stated.strip())
