"""Compiles iso/helpers/NAME.c into static programs with the tools tree's compiler.

lib*.c and lib*.h are shared by all; NAME_*.c are parts of the program NAME.
"""

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
    "-pthread",
    "-s",
    "-Wl,--build-id=none",
    "-ffile-prefix-map=/work=.",
]


def sources(folder: Path) -> dict[str, list[Path]]:
    """The programs of a folder, each with the files it is made of."""
    files = sorted(folder.glob("*.c"))
    shared = [path for path in files if path.name.startswith("lib")]
    own = [path for path in files if path not in shared]
    programs = [path for path in own if "_" not in path.stem]
    return {path.stem: [path, *(part for part in own if part.stem.startswith(f"{path.stem}_")), *shared] for path in programs}


def compile_helpers(tools: Tools, source: Path, arch: str, work: Path, target: Path) -> None:
    """One binary per program, into target."""
    programs = sources(source)
    if not programs:
        return
    say(f"helpers: {' '.join(programs)}")
    folder = work / "helpers"
    folder.mkdir()
    for path in sorted(source.glob("*.[ch]")):
        shutil.copyfile(path, folder / path.name)
    target.mkdir(parents=True, exist_ok=True)
    for name, files in programs.items():
        tools.run(f"{TRIPLET[arch]}-gcc", *_FLAGS, "-o", name, *[path.name for path in files], where=folder)
        shutil.copyfile(folder / name, target / name)
        (target / name).chmod(0o755)
