"""What macOS runs: Mach-O files (mach-o/loader.h, mach-o/fat.h), read as far as a package has to know of them.

A file is for one processor, or holds one such file for each. `settle` looks at a whole folder before it is packed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from installers.tools import BuildError

_CPUS: Final = {"arm64": 0x0100000C, "amd64": 0x01000007}
_FAT: Final = b"\xca\xfe\xba\xbe"
_THIN: Final = b"\xcf\xfa\xed\xfe"  # 64 bit, the lowest byte first
_HEADER: Final = 32
_MOST_SLICES: Final = 16  # a class of Java begins like a fat file, with a larger number there
_LOAD_DYLIB, _ID_DYLIB, _REEXPORT_DYLIB = 0xC, 0xD, 0x8000001F  # a weak one (0x80000018) may be missing
_RPATH, _SIGNATURE, _VERSION_MIN, _BUILD_VERSION = 0x8000001C, 0x1D, 0x24, 0x32
_OF_THE_SYSTEM: Final = ("/usr/lib/", "/System/Library/")

Release = tuple[int, int]


@dataclass(frozen=True)
class Image:
    """A file for one processor."""

    oldest: Release  # of macOS
    needs: tuple[str, ...]  # libraries without which it is not loaded, as it names them
    rpaths: tuple[str, ...]
    signature: tuple[int, int] | None  # offset and size of the embedded one; by "linker" or by a person


def is_macho(start: bytes) -> bool:
    """By the first eight bytes."""
    if start[:4] == _FAT:
        return int.from_bytes(start[4:8], "big") <= _MOST_SLICES
    return start[:4] == _THIN


def thin(data: bytes, arch: str) -> bytes | None:
    """The file for `arch`, out of a fat one or as it is; None when there is none. Signatures are each file's own."""
    if data[:4] == _THIN:
        return data if struct.unpack_from("<I", data, 4)[0] == _CPUS[arch] else None
    for number in range(struct.unpack_from(">I", data, 4)[0]):
        cpu, _, offset, size, _ = struct.unpack_from(">5I", data, 8 + 20 * number)
        if cpu == _CPUS[arch]:
            return data[offset : offset + size]
    return None


def read(data: bytes) -> Image:
    """Of a file for one processor. Raises BuildError when it is cut short."""
    oldest, needs, rpaths, signature = (0, 0), [], [], None
    try:
        for kind, command in _commands(data):
            if kind in (_LOAD_DYLIB, _REEXPORT_DYLIB):
                needs.append(_text(command))
            elif kind == _RPATH:
                rpaths.append(_text(command))
            elif kind == _SIGNATURE:
                signature = struct.unpack_from("<II", command, 8)
            elif kind in (_BUILD_VERSION, _VERSION_MIN):
                version = struct.unpack_from("<I", command, 12 if kind == _BUILD_VERSION else 8)[0]
                oldest = (version >> 16, version >> 8 & 0xFF)
    except struct.error as error:
        raise BuildError("a Mach-O file is cut short") from error
    return Image(oldest, tuple(needs), tuple(rpaths), signature)


def _commands(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = _HEADER
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        kind, size = struct.unpack_from("<II", data, at)
        if not size or at + size > len(data):
            raise struct.error
        yield kind, data[at : at + size]
        at += size


def _text(command: bytes) -> str:
    start = struct.unpack_from("<I", command, 8)[0]
    return command[start:].split(b"\0")[0].decode()


def settle(root: Path, arch: str, *, signed_later: bool = False) -> Release:
    """Makes every Mach-O file below `root` one for `arch` alone, and returns the oldest macOS that all of them run on.

    Raises BuildError for one that cannot run there: for other processors only, in need of a library that is neither macOS' own
    nor packed, or without the signature that Apple silicon wants of all.
    """
    oldest = (0, 0)
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            if not is_macho(file.read(8)):
                continue
        whole = path.read_bytes()
        data = thin(whole, arch)
        if data is None:
            raise BuildError(f"{path.relative_to(root)} is for other processors than {arch}")
        if len(data) != len(whole):
            path.write_bytes(data)
        image = read(data)
        if arch == "arm64" and image.signature is None and not signed_later:
            raise BuildError(f"{path.relative_to(root)} is not signed: macOS on arm64 ends it at once")
        for need in image.needs:
            if not _found(need, image, path):
                raise BuildError(f"{path.relative_to(root)} needs {need}, which is neither macOS' nor in the package")
        oldest = max(oldest, image.oldest)
    return oldest


def _found(need: str, image: Image, path: Path) -> bool:
    """Whether it is there, beside what names it (dyld(1): @loader_path, @rpath; a program is its own @executable_path)."""
    if need.startswith("@rpath/"):
        rest = need.removeprefix("@rpath/")
        return any(_found(f"{rpath.rstrip('/')}/{rest}", image, path) for rpath in image.rpaths)
    first, _, rest = need.partition("/")
    if first in ("@loader_path", "@executable_path"):
        return (path.parent / PurePosixPath(rest)).exists()
    return need.startswith(_OF_THE_SYSTEM)
