"""The build as one short story."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from builder import image, rootfs
from builder.apt import Want, all_cached, fetch
from builder.emulators import measure
from builder.hello import hello_image
from builder.helpers import compile_helpers
from builder.initrd import make_drivers, make_initrd
from builder.iptables import make_iptables
from builder.loader import make_loader, take_modules
from builder.lock import Lock, Package, differences, read_lock, write_lock
from builder.log import BuildError, say
from builder.modules import install_modules, read_kernel
from builder.recipe import Recipe, read_recipe
from builder.tools import Tools, prepare

ISO = Path(__file__).resolve().parent.parent
# Of 7 alternating boots each, sshd was up 0.5-1 s sooner with 256 KB than with 1 MB in 6; 128 KB gained no more.
BLOCK = "256K"


@dataclass(frozen=True)
class Options:
    """The command line."""

    arch: str
    output: Path
    engine_suite: str | None
    lock_update: bool
    fast: bool
    force: bool


@dataclass(frozen=True)
class Chosen:
    """The packages of one tree, and whether they are not what the lock says."""

    packages: tuple[Package, ...]
    epoch: int
    unlocked: bool


def build(options: Options) -> None:
    """Builds the ISO unless the last one was made of the same."""
    for program in ("mmdebstrap", "dpkg-deb"):
        if shutil.which(program) is None:
            raise BuildError(f"{program} is missing: apt-get install mmdebstrap dpkg")
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / f"wherry-{options.arch}.iso"
    with (options.output / ".iso.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        stamp = options.output / f".wherry-{options.arch}.stamp"
        if not (options.force or options.lock_update) and _is_current(stamp, options, target):
            say(f"{target.name} is up to date")
            return
        stamp.unlink(missing_ok=True)
        # What the inputs were when they were read: a file that is edited during the build makes the next one work again.
        inputs = _inputs(options)
        _build(options, target)
        stamp.write_text(_inputs(options) if options.lock_update else inputs, encoding="ascii")


def _is_current(stamp: Path, options: Options, target: Path) -> bool:
    made = stamp.exists() and target.exists() and target.with_suffix(".json").exists()
    return made and stamp.read_text(encoding="ascii") == _inputs(options)


def _inputs(options: Options) -> str:
    """A digest of all that the image is made of, so that a second build can answer at once."""
    parts = (options.arch, options.engine_suite, options.fast, version(), os.environ.get("SOURCE_DATE_EPOCH"))
    digest = hashlib.sha256(repr(parts).encode())
    for path in sorted(ISO.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md":
            digest.update(f"{path.relative_to(ISO)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def version() -> str:
    """The project's version, which the launcher holds."""
    source = ISO.parent / "launcher/__init__.py"
    text = source.read_text(encoding="utf-8") if source.exists() else ""
    match = re.search(r'^__version__\s*(?::\s*\w+\s*)?=\s*"([^"]+)"', text, re.M)
    return match[1] if match else "0.0.0"


def _host_arch() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def choose(want: Want, lock_file: Path, *, update: bool) -> Chosen:
    """The locked packages where all can be had, else what there is, with the differences told."""
    lock = read_lock(lock_file)
    if update:
        return _renew(want, lock_file, lock)
    if lock and lock.request == want.digest and all_cached(lock.packages):
        return Chosen(lock.packages, lock.epoch, unlocked=False)
    packages = fetch(want, lock.packages if lock else ())
    if not lock:
        say(f"lock: there is no {lock_file.name}, building with what there is")
        return Chosen(packages, int(datetime.now(UTC).timestamp()), unlocked=True)
    lines = differences(lock.packages, packages)
    for line in lines:
        say(f"not as locked: {line}")
    return Chosen(packages, lock.epoch, unlocked=bool(lines))


def _renew(want: Want, lock_file: Path, old: Lock | None) -> Chosen:
    """The newest packages, and a lock that says so; its date changes only when a package did."""
    packages = fetch(want, ())
    epoch = old.epoch if old and old.packages == packages else int(datetime.now(UTC).timestamp())
    write_lock(lock_file, Lock(epoch, want.digest, packages))
    changed = differences(old.packages if old else (), packages)
    say(f"lock: wrote {lock_file.name}, {len(packages)} packages, {len(changed)} changed")
    return Chosen(packages, epoch, unlocked=False)


def _build(options: Options, target: Path) -> None:
    recipe = read_recipe(ISO / "recipe.toml")
    engine_suite = options.engine_suite or recipe.engine_suite
    lock = ISO / f"locks/{options.arch}-{engine_suite}.lock"
    chosen = choose(_root_want(recipe, options.arch, engine_suite), lock, update=options.lock_update)
    host = _host_arch()
    tools_chosen = choose(_tools_want(recipe, host), ISO / f"locks/tools-{host}.lock", update=options.lock_update)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or chosen.epoch)
    tools = prepare(options.output, host, tools_chosen.packages, epoch)
    work = tools.work(options.arch)
    sources = tuple(package for package in tools_chosen.packages if package.architecture == "source")
    make_iptables(tools, sources, options.arch, work)
    tree = _image_tree(recipe, options, chosen.packages, tools, work)
    loader = make_loader(tools, work / "grub", options.arch, _volume(options.arch), tree, work)
    image.make_iso(tools, tree, work / "image.iso", _volume(options.arch), loader)
    manifest = {
        "format": 1,
        "name": "wherry",
        "version": version(),
        "architecture": options.arch,
        "built": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "unlocked": chosen.unlocked or tools_chosen.unlocked,
        **image.describe((*chosen.packages, *sources), work / "image.iso", tree / "live/root.squashfs"),
        "emulators": measure(tools, recipe.emulators[options.arch], work / "root", work),
        "largest": image.largest(work / "root"),
    }
    image.publish(work / "image.iso", target, manifest)
    shutil.rmtree(work)
    say(f"{target.name}: {manifest['size']:,} bytes, squashfs {manifest['root']['size']:,}")


def _volume(arch: str) -> str:
    """The ISO's name, by which the loader and the initrd find it."""
    return f"WHERRY_{arch.upper()}"


def _root_want(recipe: Recipe, arch: str, engine_suite: str) -> Want:
    engine = recipe.engine.get(engine_suite)
    if engine is None:
        raise BuildError(f"the recipe knows no engine from {engine_suite}")
    second, ours = ("", ()) if engine_suite == "stable" else (engine_suite, tuple(engine))
    names = (*recipe.packages, *engine, *recipe.loader[arch], recipe.kernel[arch])
    return Want(recipe.suite, arch, names, frozenset(recipe.skip), second, ours)


def _tools_want(recipe: Recipe, host: str) -> Want:
    cross = [name for arch, names in sorted(recipe.tools_cross.items()) if arch != host for name in names]
    return Want(recipe.suite, host, (*recipe.tools, *cross), frozenset(recipe.tools_skip), sources=tuple(recipe.sources))


def _image_tree(recipe: Recipe, options: Options, packages: tuple[Package, ...], tools: Tools, work: Path) -> Path:
    """The folder that becomes the ISO."""
    root, tree = work / "root", work / "iso"
    (tree / "boot").mkdir(parents=True)
    (tree / "live").mkdir()
    say(f"root: unpacking {len(packages)} packages")
    rootfs.unpack_root(recipe, options.arch, packages, root)
    take_modules(root, work)
    image.make_kernel(tools, rootfs.take_kernel(root, work), tree / "boot/vmlinuz")
    kernel = read_kernel(tools, work / "kernel")
    names = [name for group in recipe.modules.values() for name in group]
    install_modules(tools, kernel, kernel.closure(names, recipe.modules_never), root)
    busybox = (root / "usr/bin/busybox").read_bytes()
    early = kernel.closure([f"?{name}" for name in recipe.modules_initrd], recipe.modules_never)
    level = "-3" if options.fast else "-19"
    initrd = make_initrd(tools, kernel, early, busybox, (ISO / "initrd/init").read_bytes(), work, level)
    initrd.replace(tree / "boot/initrd")
    later = [name for name in kernel.closure(recipe.modules_firmware, recipe.modules_never) if name not in early]
    make_drivers(tools, kernel, later, _volume(options.arch), work, level).replace(tree / "boot/drivers")
    _furnish(recipe, options.arch, busybox, tools, work)
    image.make_squashfs(tools, root, tree / "live/root.squashfs", fast=options.fast, block=BLOCK)
    return tree


def _furnish(recipe: Recipe, arch: str, busybox: bytes, tools: Tools, work: Path) -> None:
    """What makes the unpacked packages our root."""
    root = work / "root"
    compile_helpers(tools, ISO / "helpers", arch, work, root / "usr/lib/wherry")
    rootfs.write(root / "usr/sbin/xtables-legacy-multi", (work / "xtables-legacy-multi").read_bytes(), 0o755)
    rootfs.write(root / "usr/share/wherry/version", f"{version()}\n".encode(), 0o644)
    rootfs.certificates(root)
    rootfs.own_files(recipe, ISO / "overlay", root)
    applets = rootfs.busybox_links(tools, root)
    unknown = sorted(set(recipe.hello_applets) - set(applets))
    if unknown:
        raise BuildError(f"busybox has no {', '.join(unknown)}")
    hello = ISO / "hello"
    files = {str(path.relative_to(hello)): path.read_bytes() for path in hello.rglob("*") if path.is_file()}
    archive = hello_image(arch, busybox, recipe.hello_applets, files, tools.epoch)
    rootfs.write(root / "usr/share/wherry/hello.tar", archive, 0o644)
    rootfs.finish(recipe, root)
    rootfs.check_libraries(tools, root)
