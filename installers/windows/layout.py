"""The folder that every package for Windows puts in place.

bin/      wherry.exe: the only folder that is on PATH
python/   a Python of its own, wherry and what it depends on in Lib/site-packages, wherry.exe once more
qemu/     QEMU, its firmware where it looks for it: in share/ beside it
setup/    helper.py
iso/      of the full edition
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from installers.context import Context, Part
from installers.tools import BuildError, run
from installers.wheels import clear, serves, unpack

TARGET: Final = "windows-amd64"
_DATA: Final = Path(__file__).parent
_COMPILER: Final = "x86_64-w64-mingw32-gcc"
_RESOURCES: Final = "x86_64-w64-mingw32-windres"
_NOT_NEEDED: Final = (
    "site-packages",
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "__pycache__",
    "*._pth",
    "Scripts",
    "include",
    "libs",
)


@dataclass(frozen=True)
class Layout:
    """The finished folder, and what was put into it."""

    root: Path
    wheels: tuple[Path, ...]
    parts: tuple[Part, ...]

    def files(self) -> list[Path]:
        """All of them, in an order that no file system decides; relative."""
        found = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return sorted(found, key=lambda path: (path.parent.parts, path.name))


def lay_out(context: Context, python: Path, iso: Path | None) -> Layout:
    """Builds the folder below the work folder. Raises BuildError."""
    root = clear(context.work / ("windows-full" if iso else "windows"))
    library = _library(python)
    wheels = tuple(wheel for wheel in context.wheels(TARGET) if serves(wheel.name, _minor(library)))
    shutil.copytree(python, root / "python", ignore=shutil.ignore_patterns(*_NOT_NEEDED))
    unpack(wheels, root / "python/Lib/site-packages")
    (root / f"python/{library}._pth").write_text(_search_path(root / "python", library), encoding="ascii")
    _stub(context, root)
    parts = [Part("cpython", _minor(library), python / f"{library}.dll")]
    if qemu := context.qemus.get(TARGET):
        shutil.copytree(qemu, root / "qemu")
        parts += [Part("qemu", "", file) for file in sorted(qemu.glob("qemu-system-x86_64.[eE][xX][eE]"))]
    else:
        [wheel] = context.wheels(f"{TARGET}-qemu")[1:]
        wheels = (*wheels, wheel)
        _qemu(wheel, root / "qemu", context)
    (root / "setup").mkdir()
    shutil.copyfile(_DATA / "helper.py", root / "setup/helper.py")
    shutil.copyfile(context.license, root / "LICENSE.txt")
    if iso:
        (root / "iso").mkdir()
        for file in (iso, iso.with_suffix(".json")):
            shutil.copyfile(file, root / "iso" / file.name)
        parts.append(Part(iso.name, context.version, iso))
    context.signed("tree", root)
    for path in root.rglob("*"):
        os.utime(path, (context.epoch, context.epoch))
    return Layout(root, wheels, tuple(parts))


def _library(python: Path) -> str:
    """python313, of python313.dll: which modules fit. Raises BuildError."""
    found = [path.stem for path in python.glob("*.dll") if re.fullmatch(r"python3\d+", path.stem, re.IGNORECASE)]
    if len(found) != 1 or not (python / "python.exe").exists():
        raise BuildError(f"{python} is no Python for Windows: it has no python.exe or not one python3NN.dll")
    return found[0]


def _minor(library: str) -> str:
    """3.13, of python313."""
    return f"3.{library.removeprefix('python3')}"


def _search_path(python: Path, library: str) -> str:
    """What Python takes modules from, and nothing else: no registry, no environment, no folder of the user
    (docs.python.org, "Finding modules", `._pth` files). An embeddable Python has its modules in a zip."""
    places = [name for name in (f"{library}.zip", "Lib", "DLLs", ".") if name == "." or (python / name).exists()]
    return "".join(f"{place}\n" for place in [*places, "Lib\\site-packages"])


def _stub(context: Context, root: Path) -> None:
    """wherry.exe. Raises BuildError where there is no compiler for Windows."""
    numbers = [*re.findall(r"\d+", context.version), "0", "0", "0", "0"][:4]
    work = clear(context.work / "stub")
    resource = work / "wherry.o"
    run(
        [
            _RESOURCES,
            f"-DNUMBERS={','.join(numbers)}",
            f'-DTEXT=\\"{context.version}\\"',
            "-I",
            _DATA,
            _DATA / "wherry.rc",
            resource,
        ]
    )
    words = ["-O2", "-s", "-municode", "-Wall", "-Wextra", "-Werror", "-Wl,--no-insert-timestamp"]
    for folder in ("bin", "python"):
        (root / folder).mkdir(exist_ok=True)
    run([_COMPILER, *words, "-o", root / "bin/wherry.exe", _DATA / "wherry.c", resource])
    shutil.copyfile(root / "bin/wherry.exe", root / "python/wherry.exe")


def _qemu(wheel: Path, target: Path, context: Context) -> None:
    """QEMU out of its wheel. It looks for firmware in share/ beside itself; in the wheel that is share/qemu/."""
    unpacked = clear(context.work / "qemu")
    unpack([wheel], unpacked)
    [program] = unpacked.glob("*/bin/qemu-system-x86_64.EXE")
    shutil.copytree(program.parent, target, ignore=shutil.ignore_patterns("share"))
    shutil.copytree(program.parent / "share/qemu", target / "share")
