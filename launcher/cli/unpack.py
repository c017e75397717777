"""A tar stream into a folder, confined to it: nothing is written through a link, above the folder, or as a device.

Python 3.11.2, which Debian 12 has, knows no extraction filters; and their "data" filter changes modes.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, Final

from launcher import host
from launcher.errors import WherryError
from launcher.report import Reporter

_CHUNK: Final = 256 << 10


def unpack(stream: IO[bytes], into: Path, *, strip: int, name: str | None, report: Reporter) -> int:
    """Unpack into the folder; the first `strip` parts of every name are replaced by `name`. Returns the number of members."""
    count = 0
    names: dict[str, str] = {}
    left_out: set[PurePosixPath] = set()
    folders: list[tuple[Path, tarfile.TarInfo]] = []
    with tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape", encoding="utf-8") as archive:
        for member in archive:
            place = _place(member.name, strip, name)
            source = _place(member.linkname, strip, name) if member.islnk() else None
            if why := _cannot_be(member, place, names, source in left_out):
                report.warn(f"{member.name} is left out: {why}.")
                left_out.add(place)
                continue
            target = into / place
            _check_parents(into, target)
            if member.isdir():
                _make_folder(target)
                folders.append((target, member))
            elif member.isreg():
                _write(archive, member, target)
            elif member.issym():
                _link(member.linkname, target, report)
            elif source is not None:
                _hard_link(into / source, target, into)
            count += 1
    # Last and inside out: a folder without write permission could not be filled, and filling changes its time.
    for target, member in reversed(folders):
        target.chmod(member.mode & 0o777)
        os.utime(target, (member.mtime, member.mtime))
    return count


def _place(member: str, strip: int, name: str | None) -> PurePosixPath:
    parts = [part for part in PurePosixPath(member).parts if part != "."]
    if member.startswith("/") or ".." in parts or "\0" in member:
        raise WherryError(f"the machine sent a name that leads out of the folder: {member!r}.")
    return PurePosixPath(*([name] if name else []), *parts[strip:])


def _cannot_be(member: tarfile.TarInfo, place: PurePosixPath, names: dict[str, str], lost: bool) -> str:
    """Why a member cannot be here, "" when it can. `lost`: it is a hard link to what was left out."""
    if not _can_be(place, names):
        return "this computer has no such names, or another file has it here"
    if lost:
        return f"it is one file with {member.linkname}, which is left out"
    kinds = (member.isdir, member.isreg, member.issym, member.islnk)
    return "" if any(kind() for kind in kinds) else "it is a device or a pipe"


def _can_be(name: PurePosixPath, names: dict[str, str]) -> bool:
    """Whether it can be here, and is no other name of what is unpacked already. `names`: those, as this computer takes them."""
    system = host.current()
    if not all(map(system.can_have, name.parts)):
        return False
    # Of the folders above too: README and readme can be two folders in the machine.
    above = ("/".join(name.parts[: end + 1]) for end in range(len(name.parts)))
    return all(names.setdefault(system.folded(path), path) == path for path in above)


def _check_parents(into: Path, target: Path) -> None:
    root = into.resolve()
    if not target.parent.resolve().is_relative_to(root) and target != into:
        raise WherryError(f"{target} would be written through a link that leads out of {into}.")


def _make_folder(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise WherryError(f"{target} is there and is no folder.")
    target.mkdir(exist_ok=True, parents=True)
    target.chmod(0o700)


def _clear(target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        raise WherryError(f"{target} is a folder, a file cannot take its place.")
    target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    _clear(target)
    source = archive.extractfile(member)
    assert source is not None
    # Exclusive: what was there is gone, and what comes in between is not followed.
    with target.open("xb") as file:
        while data := source.read(_CHUNK):
            file.write(data)
    target.chmod(member.mode & 0o777)
    os.utime(target, (member.mtime, member.mtime))


def _link(to: str, target: Path, report: Reporter) -> None:
    _clear(target)
    try:
        target.symlink_to(to)
    except OSError as error:
        report.warn(f"the link {target} -> {to} could not be made: {error.strerror}.")


def _hard_link(source: Path, target: Path, into: Path) -> None:
    _check_parents(into, source)
    if source.is_symlink() or not source.is_file():
        raise WherryError(f"{target} is a hard link to something that is no file here.")
    _clear(target)
    target.hardlink_to(source)
