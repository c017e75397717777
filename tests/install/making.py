"""The builders of installers, for a test: in a work folder of its own, since tests run side by side. Wheels are shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from installers import targets
from installers.context import Context, prepare

WHEELS = Path(__file__).parent.parent.parent / "build/installers/wheels"


def making(folder: Path, **more: Any) -> Context:
    """Hardly compressed, unless told otherwise."""
    return prepare(targets.load(), folder / "work", folder / "out", WHEELS, **{"quick": True, **more})
