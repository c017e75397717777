"""Builds the images of the recipe into one archive for `docker load`: PYTHONPATH=iso python -m tests.images.build."""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from builder import apt, debs

from launcher import host
from tests.images.recipe import APART, BASE, IMAGES, NPM, PACKAGES, PREFIX, REGISTRY, SKIP, SUITE, Image

HERE = Path(__file__).parent
FOLDER = HERE.parent.parent / "build" / "images"
_UNWANTED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")
_NEEDED = re.compile(r"\(NEEDED\)\s+Shared library: \[(.+)\]")


class Built:
    """What is there after `build`: one archive with the small images, and the registry's program for this computer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.archive = folder / "images.tar"
        self.registry = folder / "docker-registry"

    def of(self, name: str) -> Path:
        """The archive with this image: its own, or that of the small ones."""
        return self._folder / f"{name}.tar" if name in APART else self.archive


def build() -> Built:
    """The images for this computer's architecture, which is that of the guest; quick when they are there."""
    arch = host.native_arch()
    digest = hashlib.sha256(arch.encode())
    for source in sorted([*HERE.glob("*.c"), *HERE.glob("*.py")]):
        digest.update(source.read_bytes())
    folder = FOLDER / f"{arch}-{digest.hexdigest()[:12]}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for old in FOLDER.glob(f"{arch}-*"):
                shutil.rmtree(old)
            part = FOLDER / "part"
            shutil.rmtree(part, ignore_errors=True)
            _build(arch, part)
            shutil.rmtree(part / "tree")
            part.rename(folder)
    return Built(folder)


def _build(arch: str, folder: Path) -> None:
    tree = folder / "tree"
    packages = apt.fetch(apt.Want(SUITE, arch, PACKAGES, SKIP))
    debs.unpack(packages, apt.cache_folder(), tree, lambda package, name: not name.startswith(_UNWANTED))
    _install_npm(tree)
    shutil.copy2(tree / REGISTRY.take[0], folder / "docker-registry")
    base = _files(tree, BASE)
    shared = _layer(tree, base, BASE)
    _archive(folder / "images.tar", tree, arch, base, shared, [name for name in IMAGES if name not in APART])
    for name in APART:
        _archive(folder / f"{name}.tar", tree, arch, base, shared, [name])


def _install_npm(tree: Path) -> None:
    """No script of a package runs. What is for another system is left out by npm itself; nothing here is for one processor."""
    command = ["npm", "install", "--global", "--prefix", str(tree / "usr/local"), "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run([*command, *NPM], check=True, stdout=subprocess.DEVNULL)


def _archive(file: Path, tree: Path, arch: str, base: set[str], shared: bytes, names: Iterable[str]) -> None:
    """As `docker load` takes it."""
    with tarfile.TarFile(file, "w", format=tarfile.USTAR_FORMAT) as archive:
        _add(archive, "shared.tar", shared)
        manifest = []
        for name in names:
            image, layers = IMAGES[name], {"shared": shared}
            files = _files(tree, image) - base
            if files or image.programs or image.files:
                layers[name] = _layer(tree, files, image)
                _add(archive, f"{name}.tar", layers[name])
            config = json.dumps(_config(arch, image, layers.values()), sort_keys=True).encode()
            _add(archive, f"{name}.json", config)
            parts = [f"{part}.tar" for part in layers]
            manifest.append({"Config": f"{name}.json", "Layers": parts, "RepoTags": [f"{PREFIX}/{name}:latest"]})
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _config(arch: str, image: Image, layers: Iterable[bytes]) -> dict[str, Any]:
    config = {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/", **image.config}
    hashes = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    return {"architecture": arch, "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": hashes}}


def _files(tree: Path, image: Image) -> set[str]:
    """Paths in the tree that the image takes, with the libraries that they are linked with and the targets of links."""
    left = {name for pattern in image.leave for name in fnmatch.filter(_names(tree), pattern)}
    found = {name for pattern in image.take for name in fnmatch.filter(_names(tree), pattern)} - left
    for pattern in image.take:
        assert fnmatch.filter(found, pattern) or "ld-linux" in pattern, f"no package has {pattern}"
    waiting = set(found)
    while waiting:
        path = tree / waiting.pop()
        if path.is_dir():
            continue  # the target of a link; what is in it is taken by its own names
        if path.is_symlink():
            more = {os.path.relpath(path.resolve(), tree.resolve())}
        else:
            more = {_library(tree, library) for library in _needed(path)}
        waiting |= more - found
        found |= more
    return found


@cache
def _names(tree: Path) -> tuple[str, ...]:
    return tuple(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_symlink() or path.is_file())


def _library(tree: Path, name: str) -> str:
    return next(found for found in _names(tree) if found.startswith("usr/lib") and Path(found).name == name)


def _needed(path: Path) -> list[str]:
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return []
    return _NEEDED.findall(subprocess.run(["readelf", "-dW", str(path)], check=True, capture_output=True, text=True).stdout)


def _layer(tree: Path, names: Iterable[str], image: Image) -> bytes:
    out = io.BytesIO()
    with tarfile.TarFile(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as layer:
        if image is BASE:
            for link in ("bin", "lib", "lib64", "sbin"):
                _link(layer, link, f"usr/{link}")
            for applet in _applets(tree):
                _link(layer, f"usr/bin/{applet}", "busybox")
        for folder, mode in image.folders.items():
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, mode
            layer.addfile(member)
        for name in sorted(names):
            layer.add(tree / name, name, recursive=False, filter=_as_root)
        for name, target in image.links.items():
            _link(layer, name, target)
        for name, text in image.files.items():
            _add(layer, name, text.encode(), 0o755 if text.startswith("#!") else 0o644)
        for name in image.programs:
            _add(layer, f"usr/bin/{name}", _compile(HERE / f"{name}.c"), 0o755)
    return out.getvalue()


def _applets(tree: Path) -> list[str]:
    text = subprocess.run([str(tree / "usr/bin/busybox"), "--list"], check=True, capture_output=True, text=True).stdout
    return [name for name in text.split() if name != "busybox"]


def _compile(source: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "program"
        command = ["gcc", "-Wall", "-Wextra", "-Werror", "-O2", "-static", "-s", "-o", str(target), str(source)]
        subprocess.run(command, check=True)
        return target.read_bytes()


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    tar.addfile(member)


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    tar.addfile(member, io.BytesIO(data))


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    began = time.monotonic()
    made = build()
    print(
        f"{made.archive} ({made.archive.stat().st_size / 1e6:.1f} MB) and {made.registry} in {time.monotonic() - began:.1f} s"
    )
    for file in (made.archive, *(made.of(name) for name in sorted(APART))):
        with tarfile.open(file) as archive:
            for entry in archive:
                print(f"  {entry.size / 1e6:6.2f} MB  {file.name}: {entry.name}")
    sys.exit(0)
