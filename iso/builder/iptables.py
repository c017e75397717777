"""Compiles iptables as one static program. The reason, with numbers, is in the recipe beside `sources`.

It is the back end of the kernel's x_tables (`legacy`): a static one for nftables would need static libraries that Debian
does not have.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from builder.apt import cache_folder
from builder.helpers import TRIPLET
from builder.lock import Package
from builder.log import BuildError, say
from builder.tools import Tools

_CONFIGURE = (
    "--disable-nftables",
    "--disable-connlabel",
    "--disable-shared",
    "--enable-static",
    "--disable-dependency-tracking",
    "--prefix=/usr",
    "--sbindir=/usr/sbin",
    "--with-xtlibdir=/usr/lib/xtables",
)
_CFLAGS = "CFLAGS=-O2 -ffile-prefix-map=/work=."
_LDFLAGS = "LDFLAGS=-all-static -s -Wl,--build-id=none"


def make_iptables(tools: Tools, sources: Sequence[Package], arch: str, work: Path) -> None:
    """Leaves xtables-legacy-multi in work; compiled once per source, tools tree and architecture."""
    package = next((source for source in sources if source.name == "iptables"), None)
    if package is None:
        raise BuildError("the source package of iptables is missing")
    words = repr((package.sha256, arch, (tools.tree / ".packages").read_text(encoding="ascii"), _CONFIGURE, _CFLAGS, _LDFLAGS))
    kept = tools.tree / "kept" / f"iptables-{hashlib.sha256(words.encode()).hexdigest()[:16]}"
    if not kept.exists():
        say(f"iptables: compiling {package.version}")
        built = _compile(tools, package, arch, work / "iptables")
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(built, kept.with_suffix(".part"))
        kept.with_suffix(".part").replace(kept)
    shutil.copyfile(kept, work / "xtables-legacy-multi")


def _compile(tools: Tools, package: Package, arch: str, folder: Path) -> Path:
    """configure and make, in a folder of the tools tree."""
    folder.mkdir()
    archive = folder / "source.tar.xz"
    shutil.copyfile(cache_folder() / package.file_name, archive)
    tools.run("tar", "-x", "-f", archive, "--strip-components=1", "--no-same-owner", where=folder)
    tools.run("sh", "./configure", f"--host={TRIPLET[arch]}", *_CONFIGURE, _CFLAGS, where=folder)
    tools.run("make", "-j2", _LDFLAGS, where=folder)
    return folder / "iptables/xtables-legacy-multi"
