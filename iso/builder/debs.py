"""Unpacks .deb files into a tree, taking only what is wanted. No maintainer script runs, no owner is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from builder.lock import Package
from builder.log import BuildError

Wanted = Callable[[str, str], bool]


def unpack(packages: Iterable[Package], cache: Path, tree: Path, wanted: Wanted) -> dict[str, str]:
    """Unpacks all packages; base-files goes first, it brings the links of the merged /usr. Returns the copyright files
    of those that have one of their own that is not unpacked."""
    tree.mkdir(parents=True, exist_ok=True)
    copyrights = {}
    for package in sorted(packages, key=lambda p: (p.name != "base-files", p)):
        text = _unpack_one(
            cache / package.file_name, tree, partial(wanted, package.name), f"usr/share/doc/{package.name}/copyright"
        )
        if text:
            copyrights[package.name] = text
    return copyrights


def _unpack_one(deb: Path, tree: Path, wanted: Callable[[str], bool], copyright_name: str) -> str:
    """One package, read as a stream."""
    text = ""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as dpkg:
        if dpkg.stdout is None:
            raise BuildError("dpkg-deb gave no output")
        with tarfile.open(fileobj=dpkg.stdout, mode="r|") as archive:
            for member in archive:
                name = member.name.removeprefix("./").strip("/")
                if name not in ("", ".") and (member.isdir() or wanted(name)):
                    _place(archive, member, tree, name)
                elif name == copyright_name and member.isreg() and (file := archive.extractfile(member)):
                    text = file.read().decode("utf-8", "replace")
        dpkg.stdout.read()
    if dpkg.returncode:
        raise BuildError(f"{deb.name} could not be unpacked (dpkg-deb: {dpkg.returncode})")
    return text


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, tree: Path, name: str) -> None:
    """One entry; the parent may be a link of the merged /usr, never one that leads out of the tree."""
    parent = (tree / name).parent
    parent.mkdir(parents=True, exist_ok=True)
    target = parent.resolve() / Path(name).name
    if not target.is_relative_to(tree.resolve()):
        raise BuildError(f"{name} would be unpacked outside of the tree")
    if member.isdir():
        if not target.is_dir():
            target.mkdir()
        target.chmod(member.mode | 0o700)
        return
    target.unlink(missing_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        source = tree / member.linkname.removeprefix("./")
        if source.exists():
            os.link(source, target)
    elif member.isreg():
        _copy(archive, member, target)


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """A regular file with its mode."""
    source = archive.extractfile(member)
    if source is None:
        raise BuildError(f"{member.name} has no content")
    with target.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    target.chmod(member.mode)


def drop_empty_folders(tree: Path, keep: Iterable[str]) -> None:
    """Removes the folders that pruning left empty."""
    kept = set(keep)
    for folder, _, _ in os.walk(tree, topdown=False):
        path = Path(folder)
        if path != tree and str(path.relative_to(tree)) not in kept and not any(path.iterdir()):
            path.rmdir()
