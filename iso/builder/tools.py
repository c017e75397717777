"""The tools tree: Debian 13's own tools, so that the bytes of an image do not depend on the host that built it.

Work happens in a folder inside the tree, so entering it takes a chroot and no mounts: as root by chroot, else
in a user namespace.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.apt import cache_folder
from builder.debs import unpack
from builder.lock import Package
from builder.log import run, say

_PRUNE = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/", "usr/lib/python3")
# A user cannot make a device, so the host's /dev/null is laid over a plain file.
_ENTER = 'mount --bind /dev/null "$0/dev/null" && exec chroot "$0" "$@"'
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


@dataclass(frozen=True)
class Tools:
    """An unpacked tools tree."""

    tree: Path
    epoch: int

    def work(self, name: str) -> Path:
        """A fresh, empty folder inside the tree, for one build."""
        folder = self.tree / "work" / name
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        return folder

    def inside(self, path: Path) -> str:
        """A path as seen from inside the tree."""
        return "/" + str(path.relative_to(self.tree))

    def run(self, *command: str | Path, where: Path | None = None) -> bytes:
        """Runs a tool; Path arguments are host paths below the tree."""
        words = [self.inside(word) if isinstance(word, Path) else word for word in command]
        enter = ["chroot", str(self.tree)]
        if os.geteuid() != 0:
            enter = ["unshare", "--map-root-user", "--mount", "sh", "-c", _ENTER, str(self.tree)]
        script = 'cd "$1" && shift && exec "$@"'
        folder = self.inside(where) if where else "/"
        # Nothing of the caller's environment: CFLAGS, MAKEFLAGS, ZSTD_CLEVEL, TAR_OPTIONS and the like change what tools write.
        # chroot is looked up in the host's folders, which a user's PATH does not always name, the tool in the tree's.
        settings = {**_ENVIRONMENT, "SOURCE_DATE_EPOCH": str(self.epoch)}
        clean = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in settings.items())]
        return run([*clean, *enter, "/usr/bin/busybox", "sh", "-c", script, "sh", folder, *words])


def prepare(tree: Path, packages: Sequence[Package], epoch: int) -> Tools:
    """The tree of these packages: the one from last time if it is made of the same, else a new one."""
    stamp = tree / ".packages"
    digest = hashlib.sha256("\n".join(p.sha256 for p in packages).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text(encoding="ascii") != digest:
        say(f"tools: unpacking {len(packages)} packages")
        if tree.exists():
            shutil.rmtree(tree)
        binary = [package for package in packages if package.architecture != "source"]
        unpack(binary, cache_folder(), tree, lambda _package, path: not path.startswith(_PRUNE))
        (tree / "tmp").mkdir(exist_ok=True)
        (tree / "dev").mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.mknod(tree / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        else:
            (tree / "dev/null").touch()
        stamp.write_text(digest, encoding="ascii")
    return Tools(tree, epoch)
