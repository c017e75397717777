"""Puts the root file system together: packages without what nobody needs, then the recipe's own files, links and folders."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase, translate
from pathlib import Path

from builder.apt import cache_folder
from builder.debs import drop_empty_folders, unpack
from builder.lock import Package
from builder.log import BuildError
from builder.recipe import Recipe
from builder.tools import Tools

_PROGRAM_FOLDERS = ("usr/lib/wherry/", "etc/wherry/", "etc/init.d/")


def unpack_root(recipe: Recipe, arch: str, packages: Sequence[Package], root: Path) -> dict[str, str]:
    """Unpacks what the recipe keeps, and returns the packages' copyright files, which it does not keep."""
    keep = {**recipe.keep, "qemu-user": [f"usr/bin/{name}" for name in recipe.emulators[arch]]}
    pruned = re.compile("|".join(translate(pattern) for pattern in recipe.prune))

    def wanted(package: str, path: str) -> bool:
        kept = keep.get(package)
        if kept is not None:
            return any(fnmatchcase(path, pattern) for pattern in kept) and not pruned.match(path)
        return not pruned.match(path)

    return unpack(packages, cache_folder(), root, wanted)


def take_kernel(root: Path, work: Path) -> Path:
    """Moves kernel and modules out of the root; the path of the kernel file is returned."""
    shutil.move(root / "usr/lib/modules", work / "kernel/usr/lib/modules")
    (work / "kernel/lib").symlink_to("usr/lib")
    kernels = sorted((root / "boot").glob("vmlinu*"))
    if len(kernels) != 1:
        raise BuildError(f"expected one kernel, found {len(kernels)}")
    kernel = work / "vmlinuz.package"
    shutil.move(kernels[0], kernel)
    shutil.rmtree(root / "boot")
    return kernel


def busybox_links(tools: Tools, root: Path) -> list[str]:
    """Links for all applets, except where a package brought the real program. Returns the applets' names."""
    names = []
    for line in tools.run("/usr/bin/busybox", "--list-full").decode().split():
        name = Path(line).name
        names.append(name)
        folder = "usr/sbin" if "sbin/" in line else "usr/bin"
        taken = any((root / place / name).is_symlink() or (root / place / name).exists() for place in ("usr/bin", "usr/sbin"))
        if not taken and name != "busybox":
            target = "busybox" if folder == "usr/bin" else "../bin/busybox"
            (root / folder / name).symlink_to(target)
    return names


def certificates(root: Path) -> None:
    """What update-ca-certificates would have made: one bundle."""
    source = root / "usr/share/ca-certificates"
    bundle = b"".join(path.read_bytes().rstrip() + b"\n" for path in sorted(source.rglob("*.crt")))
    if not bundle:
        raise BuildError("ca-certificates brought no certificate")
    write(root / "etc/ssl/certs/ca-certificates.crt", bundle, 0o644)
    shutil.rmtree(source)
    (root / "etc/ca-certificates.conf").unlink(missing_ok=True)


def write(path: Path, data: bytes, mode: int) -> None:
    """A file with exactly this mode, whatever was there and whatever the umask is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def own_files(recipe: Recipe, overlay: Path, root: Path) -> None:
    """The recipe's files and links and the overlay; the overlay wins."""
    drop_empty_folders(root, ())
    for name, text in sorted(recipe.files.items()):
        write(root / name, text.lstrip("\n").encode(), 0o644)
    for name, target in sorted(recipe.links.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    for source in sorted(overlay.rglob("*")):
        name = str(source.relative_to(overlay))
        if source.is_symlink():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).unlink(missing_ok=True)
            (root / name).symlink_to(source.readlink())
        elif source.is_file():
            data = source.read_bytes()
            # Never the host's mode: a checkout on Windows or under another umask has to give the same image.
            program = (name.startswith(_PROGRAM_FOLDERS) and "." not in source.name) or data.startswith(b"#!")
            write(root / name, data, 0o755 if program else 0o644)


def finish(recipe: Recipe, root: Path, epoch: int) -> None:
    """Folders, modes and times, last."""
    drop_empty_folders(root, recipe.directories)
    for folder in sorted(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink()):
        folder.chmod(0o755)
    root.chmod(0o755)
    for name, mode in sorted(recipe.directories.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(int(mode, 8))
    for name in recipe.private:
        (root / name).chmod(0o600)
    for path in [root, *root.rglob("*")]:
        # mksquashfs would only lower a time that is later than the date, not raise an earlier one.
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def check_libraries(tools: Tools, root: Path) -> None:
    """Every library that a program is linked with has to be in the image: packages were left out on purpose."""
    programs = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink() and is_elf(path)]
    programs = [path for path in programs if "modules/" not in str(path)]
    text = tools.run("readelf", "-d", *programs).decode(errors="replace")
    present = {path.name for path in root.glob("usr/lib/**/*.so*")} | {path.name for path in root.glob("usr/lib64/*.so*")}
    missing, current = [], ""
    for line in text.splitlines():
        if line.startswith("File: "):
            current = line[6:]
        match = re.search(r"\(NEEDED\).*\[(.+)\]", line)
        if match and match[1] not in present:
            missing.append(f"{match[1]} for {current.split('/root/', 1)[-1]}")
    if missing:
        lines = "\n  ".join(missing)
        raise BuildError(f"libraries are missing in the image (see `skip` and `prune` in the recipe):\n  {lines}")


def is_elf(path: Path) -> bool:
    """Whether a file is a program or a library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
