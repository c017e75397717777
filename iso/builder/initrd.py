"""The initrd: busybox, the few modules that reach the root, and one script."""

from __future__ import annotations

import stat
from pathlib import Path

from builder import cpio
from builder.modules import Kernel, copy_module
from builder.tools import Tools

_APPLETS = ("cat", "insmod", "mkdir", "mount", "poweroff", "sh", "sleep", "switch_root")


def make_initrd(tools: Tools, kernel: Kernel, modules: list[str], busybox: bytes, init: bytes, work: Path, level: str) -> Path:
    """Writes the compressed archive and returns its path."""
    entries = [cpio.folder(name) for name in ("bin", "dev", "lib", "lower", "new", "proc", "rw", "sys")]
    entries.append(cpio.Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    entries.append(cpio.file("bin/busybox", busybox, 0o755))
    entries += [cpio.link(f"bin/{name}", "busybox") for name in _APPLETS]
    for number, name in enumerate(modules):
        copy_module(kernel, name, work / "module.ko")
        # The number keeps the order: init inserts them as the shell sorts them, without reading any index.
        entries.append(cpio.file(f"lib/{number:02}-{name}.ko", (work / "module.ko").read_bytes()))
    entries.append(cpio.file("init", init, 0o755))
    plain = work / "initrd.cpio"
    plain.write_bytes(cpio.archive(entries, tools.epoch))
    tools.run("zstd", "-q", "-f", level, "--no-check", plain, "-o", work / "initrd")
    return work / "initrd"
