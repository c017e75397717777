"""The initrd: busybox, the few modules that reach the root, and one script."""

from __future__ import annotations

import stat
from pathlib import Path

from builder import cpio
from builder.modules import Kernel, copy_module
from builder.tools import Tools

_APPLETS = ("cat", "dd", "insmod", "mkdir", "mount", "poweroff", "sh", "sleep", "switch_root", "umount", "uname")


def make_initrd(tools: Tools, kernel: Kernel, modules: list[str], busybox: bytes, init: bytes, work: Path, level: str) -> Path:
    """Writes the compressed archive and returns its path."""
    entries = [cpio.folder(name) for name in ("bin", "dev", "iso", "lib", "lower", "new", "proc", "rw", "sys")]
    entries.append(cpio.Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    entries.append(cpio.file("bin/busybox", busybox, 0o755))
    entries += [cpio.link(f"bin/{name}", "busybox") for name in _APPLETS]
    entries += _modules(kernel, modules, "lib", work)
    entries.append(cpio.file("init", init, 0o755))
    return _pack(tools, entries, work / "initrd", level)


def make_drivers(tools: Tools, kernel: Kernel, modules: list[str], volume: str, work: Path, level: str) -> Path:
    """What the boot loader adds to the initrd: drivers of other hypervisors' disks, and the name of the ISO on one of them.

    An archive of its own, because the kernel unpacks an initrd whole before its first process runs.
    """
    entries = [cpio.folder("drivers"), cpio.file("drivers/volume", f"{volume}\n".encode())]
    entries += _modules(kernel, modules, "drivers", work)
    return _pack(tools, entries, work / "drivers", level)


def _modules(kernel: Kernel, names: list[str], folder: str, work: Path) -> list[cpio.Entry]:
    entries = []
    for number, name in enumerate(names):
        copy_module(kernel, name, work / "module.ko")
        # The number keeps the order: init inserts them as the shell sorts them, without reading any index.
        entries.append(cpio.file(f"{folder}/{number:02}-{name}.ko", (work / "module.ko").read_bytes()))
    return entries


def _pack(tools: Tools, entries: list[cpio.Entry], target: Path, level: str) -> Path:
    plain = target.with_suffix(".cpio")
    plain.write_bytes(cpio.archive(entries, tools.epoch))
    # One thread on purpose: zstd 1.5.7 takes more where there are more CPUs, and may then write other bytes.
    tools.run("zstd", "-q", "-f", "--single-thread", level, "--no-check", plain, "-o", target)
    return target
