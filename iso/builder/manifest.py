"""What the build says of an image: the facts of its manifest, and which of its files were made here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.apt import sha256_of
from builder.control import Origin
from builder.lock import Package
from builder.rootfs import is_elf

_OWN = ("usr/lib/wherry", "usr/share/wherry")


@dataclass(frozen=True)
class Part:
    """A file that this build made: its path (in the root, or in the ISO), and the packages whose code is in it."""

    path: str
    version: str
    sha256: str
    made_of: tuple[Package, ...] = ()


def describe(packages: Mapping[Package, Origin], iso: Path, squashfs: Path) -> dict[str, Any]:
    """The part of the manifest that is measured, or known from the packages."""
    kernel = next((p.version for p in packages if p.name.startswith("linux-image-")), "")
    engine = next((p.version for p in packages if p.name == "docker.io"), "")
    return {
        "sha256": sha256_of(iso),
        "size": iso.stat().st_size,
        "kernel": kernel,
        "engine": engine.split("+")[0],
        "root": {"path": "/live/root.squashfs", "size": squashfs.stat().st_size, "sha256": sha256_of(squashfs)},
        "packages": [_told(package, origin) for package, origin in packages.items()],
    }


def _told(package: Package, origin: Origin) -> dict[str, str]:
    told = {key: getattr(package, key) for key in ("name", "version", "architecture", "suite", "sha256")}
    return {**told, "source": origin.source, "source_version": origin.source_version}


def linked_statically(tools: Sequence[Package], arch: str, host: str) -> tuple[Package, ...]:
    """The packages of the tools tree whose libraries are in every program that is compiled here: libc's and gcc's own."""
    end = "" if arch == host else f"-{arch}-cross"
    return tuple(package for package in tools if re.fullmatch(rf"(libc6|libgcc-\d+)-dev{end}", package.name))


def own_parts(version: str, root: Path, tree: Path, packages: Sequence[Package], linked: tuple[Package, ...]) -> list[Part]:
    """The files of the image that no package brought as they are."""
    busybox, iptables = _named(packages, "busybox-static"), _named(packages, "iptables")
    kernel, grub = _named(packages, "linux-image-"), _named(packages, "grub-")
    static, hello = "usr/sbin/xtables-legacy-multi", "usr/share/wherry/hello.tar"
    made_of = {static: iptables + linked, hello: busybox, "boot/initrd": busybox + kernel, "boot/drivers": kernel}
    files = [(root, root / static), *((root, path) for folder in _OWN for path in sorted((root / folder).rglob("*")))]
    files += [
        (tree, tree / "boot/initrd"),
        (tree, tree / "boot/drivers"),
        *((tree, p) for p in sorted((tree / "boot/grub").rglob("*"))),
    ]
    parts = []
    for base, path in files:
        if path.is_file():
            name = path.relative_to(base).as_posix()
            code = made_of.get(name) or (linked if is_elf(path) else grub if path.suffix == ".img" else ())
            parts.append(Part(f"/{name}", iptables[0].version if name == static else version, sha256_of(path), code))
    return parts


def _named(packages: Sequence[Package], start: str) -> tuple[Package, ...]:
    return tuple(package for package in packages if package.name.startswith(start))
