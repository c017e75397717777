"""What the core of the file server needs to be tried without a keeper."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def owners(folder: Path) -> Any:
    """A store of remembered owners in the folder."""
    from launcher.sftp.owners import Owners

    return Owners(folder / "owners.db", folder.stat().st_dev)
