"""Where iso/ and provisioning/ are: packed in the wheel, or beside launcher/ in a checkout."""

from __future__ import annotations

from pathlib import Path


def guest_root() -> Path:
    """The folder that holds iso/ and provisioning/."""
    packed = Path(__file__).parent / "_guest"
    return packed if packed.is_dir() else Path(__file__).parent.parent


def checkout() -> Path | None:
    """The checkout that this package runs from, or None when it is installed."""
    root = Path(__file__).parent.parent
    return root if (root / "iso" / "build.py").is_file() and (root / "pyproject.toml").is_file() else None


def provisioning() -> Path:
    """boot.sh, boot.d/ and daemon.json."""
    return guest_root() / "provisioning"
