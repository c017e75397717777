"""wherry.rb, a Homebrew formula for a tap, and the archives that it installs: the wheels of each processor, unpacked.

Homebrew brings Python and QEMU. Wheels and not sources, because cryptography from source needs a compiler for Rust.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Final

from installers.context import Context, Made
from installers.macos import tree
from installers.tools import sha256
from installers.wheels import clear, serves, unpack

_TEMPLATE: Final = Path(__file__).with_name("wherry.rb")
_ARCHES: Final = {"arm64": "ARM", "amd64": "INTEL"}


def build_all(context: Context) -> list[Made]:
    """Both archives, and the formula that names them. Raises BuildError."""
    made = []
    text = _TEMPLATE.read_text(encoding="utf-8")
    python = context.targets["macos-arm64"].pythons[-1]
    for arch, word in _ARCHES.items():
        wheels = tuple(wheel for wheel in context.wheels(f"macos-{arch}") if serves(wheel.name, python))
        archive = _archive(arch, wheels, context)
        made.append(Made(archive, wheels))
        text = text.replace(f"@{word}_URL@", f"{context.folder}/{archive.name}").replace(f"@{word}_SHA256@", sha256(archive))
    formula = context.output / "wherry.rb"
    for word, value in (("VERSION", context.version), ("PYTHON", python), ("HOMEPAGE", context.folder)):
        text = text.replace(f"@{word}@", value)
    formula.write_text(text, encoding="utf-8")
    return [*made, Made(formula, ())]


def _archive(arch: str, wheels: tuple[Path, ...], context: Context) -> Path:
    root = clear(context.work / f"brew-{arch}")
    unpack(wheels, root / "site-packages")
    target = context.output / f"wherry-{context.version}-macos-{arch}.tar.gz"
    level = 1 if context.quick else 9
    with (
        target.open("wb") as file,
        gzip.GzipFile(fileobj=file, mode="wb", compresslevel=level, filename="", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for entry in tree.read(root)[1:]:
            # Homebrew steps into the one folder of an archive.
            member = tarfile.TarInfo(f"wherry-{context.version}/{entry.name.removeprefix('./')}")
            member.mode, member.mtime, member.size = entry.mode & 0o777, context.epoch, len(entry.content)
            member.type = tarfile.DIRTYPE if entry.is_folder else tarfile.REGTYPE
            archive.addfile(member, io.BytesIO(entry.content))
    return target
