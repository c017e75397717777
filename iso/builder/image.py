"""The bytes that leave the build: kernel, squashfs, ISO and manifest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from builder.log import say
from builder.tools import Tools


def make_kernel(tools: Tools, source: Path, target: Path) -> None:
    """The kernel as QEMU takes it: an x86 bzImage as it is, an arm64 Image packed with gzip."""
    data = source.read_bytes()
    if data[0x38:0x3C] == b"ARM\x64":
        shutil.copyfile(source, target.with_suffix(".raw"))
        tools.run("gzip", "-9", "-n", "-f", "-k", target.with_suffix(".raw"))
        target.with_suffix(".raw.gz").replace(target)
        target.with_suffix(".raw").unlink()
    else:
        target.write_bytes(data)


def make_squashfs(tools: Tools, root: Path, target: Path, *, fast: bool, block: str) -> None:
    """The root, everything owned by root. The number of threads does not change the bytes: tests/build compares."""
    say("squashfs: packing")
    tools.run(
        "mksquashfs", root, target, "-noappend", "-no-progress", "-quiet", "-all-root", "-no-xattrs", "-no-exports",
        "-comp", "zstd", "-Xcompression-level", "3" if fast else "19", "-b", block,
        "-processors", str(len(os.sched_getaffinity(0))),
    )  # fmt: skip


def make_iso(tools: Tools, tree: Path, target: Path, volume: str, loader: Sequence[str | Path]) -> None:
    """An ISO 9660 with Rock Ridge names that BIOS and UEFI boot; SOURCE_DATE_EPOCH fixes its dates and its id."""
    moment = datetime.fromtimestamp(tools.epoch, UTC).strftime("%Y%m%d%H%M%S00")
    for path in [tree, *sorted(tree.rglob("*"))]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (tools.epoch, tools.epoch))
    tools.run(
        "xorriso", "-as", "mkisofs", "-quiet", "-r", "-V", volume, "-appid", "WHERRY", "-preparer", "",
        f"--modification-date={moment}", *loader, "-o", target, tree,
    )  # fmt: skip


def largest(root: Path, count: int = 10) -> list[dict[str, Any]]:
    """The largest files of the root, kernel modules as one item, before compression."""
    sizes: dict[str, int] = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            name = str(path.relative_to(root))
            name = "usr/lib/modules" if name.startswith("usr/lib/modules/") else name
            sizes[name] = sizes.get(name, 0) + path.stat().st_size
    ranked = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:count]
    return [{"path": f"/{name}", "size": size} for name, size in ranked]


def publish(iso: Path, target: Path, manifest: dict[str, Any], bill: bytes | None) -> None:
    """ISO first, then the SBOM, manifest last, each whole: who finds a manifest finds what it names."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".iso.part")
    shutil.copyfile(iso, partial)
    target.with_suffix(".json").unlink(missing_ok=True)
    target.with_suffix(".cdx.json").unlink(missing_ok=True)
    partial.replace(target)
    if bill is not None:
        _write(target.with_suffix(".cdx.json"), bill)
    _write(target.with_suffix(".json"), (json.dumps(manifest, indent=1, sort_keys=False) + "\n").encode())


def _write(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".part")
    partial.write_bytes(data)
    partial.replace(path)
