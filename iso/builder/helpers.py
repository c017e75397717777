"""Compiles iso/helpers/NAME.c into static programs with the tools tree's compiler; lib*.c and lib*.h are shared by all."""

from __future__ import annotations

import shutil
from pathlib import Path

from builder.log import say
from builder.tools import Tools

TRIPLET = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
# No build id and no absolute paths: the same source gives the same bytes.
_FLAGS = [
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-static",
    "-s",
    "-Wl,--build-id=none",
    "-ffile-prefix-map=/work=.",
]


def compile_helpers(tools: Tools, source: Path, arch: str, work: Path, target: Path) -> None:
    """One binary per program, into target."""
    programs = sorted(path for path in source.glob("*.c") if not path.name.startswith("lib")) if source.is_dir() else []
    if not programs:
        return
    say(f"helpers: {' '.join(path.stem for path in programs)}")
    folder = work / "helpers"
    folder.mkdir()
    for path in sorted(source.glob("*.[ch]")):
        shutil.copyfile(path, folder / path.name)
    shared = sorted(path.name for path in folder.glob("lib*.c"))
    target.mkdir(parents=True, exist_ok=True)
    for path in programs:
        tools.run(f"{TRIPLET[arch]}-gcc", *_FLAGS, "-o", path.stem, path.name, *shared, where=folder)
        shutil.copyfile(folder / path.stem, target / path.stem)
        (target / path.stem).chmod(0o755)
