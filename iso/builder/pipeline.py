"""The build as one short story."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from builder import image, rootfs
from builder.apt import cache_folder, sha256_of
from builder.control import read_origin
from builder.emulators import measure
from builder.hello import hello_image
from builder.helpers import compile_helpers
from builder.initrd import make_drivers, make_initrd
from builder.iptables import make_iptables
from builder.loader import make_loader, take_modules
from builder.lock import Package
from builder.log import BuildError, say
from builder.manifest import describe, linked_statically, own_parts
from builder.modules import install_modules, read_kernel
from builder.packages import Chosen, choose, host_arch, refuse_differences, renew_all, root_want, tell_differences, tools_want
from builder.recipe import Recipe, read_recipe
from builder.tools import Tools, prepare

ISO = Path(__file__).resolve().parent.parent
# Of 7 alternating boots each, sshd was up 0.5-1 s sooner with 256 KB than with 1 MB in 6; 128 KB gained no more.
BLOCK = "256K"
_LEFT_BEHIND = {"__pycache__", ".mypy_cache", ".ruff_cache"}
_GET_SBOM = "the SBOM is written by cyclonedx-python-lib: pip install 'wherry[iso]', and start the build with that Python"


@dataclass(frozen=True)
class Options:
    """The command line."""

    arch: str
    output: Path
    engine_suite: str | None
    tools: Path
    mirrors: tuple[str, ...]
    version: str
    lock_update: bool
    locked: bool
    fast: bool
    force: bool


def build(options: Options) -> None:
    """Builds the ISO unless the last one was made of the same."""
    for program in ("mmdebstrap", "dpkg-deb"):
        if shutil.which(program) is None:
            raise BuildError(f"{program} is missing: apt-get install mmdebstrap dpkg")
    os.umask(0o022)  # the caller's would be in the modes of what the tools write
    recipe = read_recipe(ISO / "recipe.toml")
    if options.lock_update:
        renew_all(recipe, ISO / "locks", options.mirrors)
        return
    with _held(options.output / ".iso.lock"), _held(options.tools / ".tools.lock"):
        _build_if_needed(options, recipe)


def _build_if_needed(options: Options, recipe: Recipe) -> None:
    target = options.output / f"wherry-{options.arch}.iso"
    stamp = options.output / f".wherry-{options.arch}.stamp"
    # What the inputs are when they are read: a file that is edited during the build makes the next one work again.
    inputs = _inputs(options)
    current = stamp.exists() and stamp.read_text(encoding="ascii") == inputs and _is_whole(target, locked=options.locked)
    if current and not options.force:
        say(f"{target.name} is up to date")
        return
    stamp.unlink(missing_ok=True)
    _build(options, recipe, target)
    stamp.write_text(inputs, encoding="ascii")


def _is_whole(target: Path, *, locked: bool) -> bool:
    """Whether the results are there, and of the kind that a locked build leaves."""
    described = target.with_suffix(".json")
    if not (target.exists() and described.exists()):
        return False
    manifest = json.loads(described.read_text(encoding="utf-8"))
    return not locked or (manifest.get("unlocked") is False and "sbom" in manifest)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """One build at a time in a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def _inputs(options: Options) -> str:
    """A digest of all that the image is made of, so that a second build can answer at once."""
    parts = (options.arch, options.engine_suite, options.fast, options.version, _given_epoch(options), _sbom() is not None)
    return hashlib.sha256(f"{parts}{_sources()}".encode()).hexdigest()


def _sources() -> str:
    """A digest of this folder: the recipe, the locks, our own files and the build itself."""
    digest = hashlib.sha256()
    for path in sorted(ISO.rglob("*")):
        if path.is_file() and not _LEFT_BEHIND & set(path.parts) and path.suffix != ".md":
            digest.update(f"{path.relative_to(ISO).as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _given_epoch(options: Options) -> str | None:
    """The date that the environment asks for. A release has its lock's, so that anyone gets the same bytes."""
    return None if options.locked else os.environ.get("SOURCE_DATE_EPOCH")


def version() -> str:
    """The project's version, which the launcher holds: beside iso/ in a checkout, around it in a wheel."""
    for source in (ISO.parent / "launcher/__init__.py", ISO.parent.parent / "__init__.py"):
        text = source.read_text(encoding="utf-8") if source.exists() else ""
        match = re.search(r'^__version__\s*(?::\s*\w+\s*)?=\s*"([^"]+)"', text, re.M)
        if match:
            return match[1]
    return "0.0.0"


def _sbom() -> ModuleType | None:
    """The module that writes SBOMs, where the library for it is installed."""
    try:
        from builder import sbom
    except ImportError:
        return None
    return sbom


def _build(options: Options, recipe: Recipe, target: Path) -> None:
    if options.locked and _sbom() is None:
        raise BuildError(f"a locked build has an SBOM; {_GET_SBOM}")
    chosen, chosen_tools = _choose(options, recipe)
    epoch = int(_given_epoch(options) or chosen.epoch)
    tools = prepare(options.tools / f"tools-{host_arch()}", chosen_tools.packages, epoch)
    work = tools.work(options.arch)
    sources = tuple(package for package in chosen_tools.packages if package.architecture == "source")
    make_iptables(tools, sources, options.arch, work)
    tree, copyrights = _image_tree(recipe, options, chosen.packages, tools, work)
    loader = make_loader(tools, work / "grub", options.arch, _volume(options.arch), tree, work)
    image.make_iso(tools, tree, work / "image.iso", _volume(options.arch), loader)
    linked = linked_statically(chosen_tools.packages, options.arch, host_arch())
    packages = (*chosen.packages, *sources, *linked)
    origins = {package: read_origin(cache_folder(), package, copyrights.get(package.name, "")) for package in packages}
    manifest: dict[str, Any] = {
        "format": 1,
        "name": "wherry",
        "version": options.version,
        "architecture": options.arch,
        "built": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "unlocked": bool(chosen.differences or chosen_tools.differences),
        "rebuild": _rebuild_facts(options, recipe, epoch, (chosen, chosen_tools)),
        **describe(origins, work / "image.iso", tree / "live/root.squashfs"),
        "emulators": measure(tools, recipe.emulators[options.arch], work / "root", work, _level(options)),
        "largest": image.largest(work / "root"),
    }
    writer, bill = _sbom(), None
    if writer is None:
        say(f"no SBOM; {_GET_SBOM}")
    else:
        bill = writer.render(manifest, origins, own_parts(options.version, work / "root", tree, packages, linked))
        manifest["sbom"] = {"path": target.with_suffix(".cdx.json").name, "sha256": hashlib.sha256(bill).hexdigest()}
    image.publish(work / "image.iso", target, manifest, bill)
    shutil.rmtree(work)
    say(f"{target.name}: {manifest['size']:,} bytes, squashfs {manifest['root']['size']:,}")


def _level(options: Options) -> str:
    """zstd's, of what the build packs outside of the squashfs."""
    return "-3" if options.fast else "-19"


def _volume(arch: str) -> str:
    """The ISO's name, by which the loader and the initrd find it."""
    return f"WHERRY_{arch.upper()}"


def _rebuild_facts(options: Options, recipe: Recipe, epoch: int, trees: tuple[Chosen, ...]) -> dict[str, Any]:
    """What a second build has to have in common with this one to give the same bytes."""
    return {
        "source_date_epoch": epoch,
        "suite": recipe.suite,
        "engine_suite": options.engine_suite or recipe.engine_suite,
        "tools_architecture": host_arch(),
        "fast": options.fast,
        "sources": _sources(),
        "locks": {tree.lock.name: sha256_of(tree.lock) for tree in trees if tree.lock.exists()},
    }


def _choose(options: Options, recipe: Recipe) -> tuple[Chosen, Chosen]:
    """The packages of the root and of the tools. A locked build ends here when they are not as locked."""
    suite, host = options.engine_suite or recipe.engine_suite, host_arch()
    wants = {
        ISO / f"locks/{options.arch}-{suite}.lock": root_want(recipe, options.arch, suite),
        ISO / f"locks/tools-{host}.lock": tools_want(recipe, host),
    }
    root_tree, tools_tree = (choose(want, lock, locked=options.locked, mirrors=options.mirrors) for lock, want in wants.items())
    if options.locked:
        refuse_differences((root_tree, tools_tree))
    tell_differences((root_tree, tools_tree))
    return root_tree, tools_tree


def _image_tree(
    recipe: Recipe, options: Options, packages: tuple[Package, ...], tools: Tools, work: Path
) -> tuple[Path, dict[str, str]]:
    """The folder that becomes the ISO, and the copyright files of the packages in it."""
    root, tree = work / "root", work / "iso"
    (tree / "boot").mkdir(parents=True)
    (tree / "live").mkdir()
    say(f"root: unpacking {len(packages)} packages")
    copyrights = rootfs.unpack_root(recipe, options.arch, packages, root)
    take_modules(root, work)
    image.make_kernel(tools, rootfs.take_kernel(root, work), tree / "boot/vmlinuz")
    kernel = read_kernel(tools, work / "kernel")
    names = [name for group in recipe.modules.values() for name in group]
    install_modules(tools, kernel, kernel.closure(names, recipe.modules_never), root)
    busybox = (root / "usr/bin/busybox").read_bytes()
    early = kernel.closure([f"?{name}" for name in recipe.modules_initrd], recipe.modules_never)
    level = _level(options)
    initrd = make_initrd(tools, kernel, early, busybox, (ISO / "initrd/init").read_bytes(), work, level)
    initrd.replace(tree / "boot/initrd")
    later = [name for name in kernel.closure(recipe.modules_firmware, recipe.modules_never) if name not in early]
    make_drivers(tools, kernel, later, _volume(options.arch), work, level).replace(tree / "boot/drivers")
    _furnish(recipe, options, busybox, tools, work)
    image.make_squashfs(tools, root, tree / "live/root.squashfs", fast=options.fast, block=BLOCK)
    return tree, copyrights


def _furnish(recipe: Recipe, options: Options, busybox: bytes, tools: Tools, work: Path) -> None:
    """What makes the unpacked packages our root."""
    root = work / "root"
    compile_helpers(tools, ISO / "helpers", options.arch, work, root / "usr/lib/wherry")
    rootfs.write(root / "usr/sbin/xtables-legacy-multi", (work / "xtables-legacy-multi").read_bytes(), 0o755)
    rootfs.write(root / "usr/share/wherry/version", f"{options.version}\n".encode(), 0o644)
    rootfs.certificates(root)
    rootfs.own_files(recipe, ISO / "overlay", root)
    applets = rootfs.busybox_links(tools, root)
    unknown = sorted(set(recipe.hello_applets) - set(applets))
    if unknown:
        raise BuildError(f"busybox has no {', '.join(unknown)}")
    hello = ISO / "hello"
    files = {str(path.relative_to(hello)): path.read_bytes() for path in hello.rglob("*") if path.is_file()}
    archive = hello_image(options.arch, busybox, recipe.hello_applets, files, tools.epoch)
    rootfs.write(root / "usr/share/wherry/hello.tar", archive, 0o644)
    rootfs.finish(recipe, root, tools.epoch)
    rootfs.check_libraries(tools, root)
