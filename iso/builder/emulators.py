"""The interpreters for programs of the other architecture: what they add to the image, told apart from the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder.log import BuildError
from builder.tools import Tools


def measure(tools: Tools, names: Sequence[str], root: Path, work: Path, level: str) -> list[dict[str, Any]]:
    """Size in bytes of each interpreter, and packed by itself with zstd, about as the squashfs packs it."""
    found = []
    for name in names:
        program = root / "usr/bin" / name
        if b"/ld-linux-" in program.read_bytes():
            raise BuildError(f"{name} is not static: within a container it would look for its loader")
        packed = work / "emulator.zst"
        tools.run("zstd", "-q", "-f", "--single-thread", level, program, "-o", packed)
        found.append({"path": f"/usr/bin/{name}", "size": program.stat().st_size, "packed": packed.stat().st_size})
    return found
