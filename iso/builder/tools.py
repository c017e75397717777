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
        env = {"PATH": "/usr/sbin:/usr/bin", "HOME": "/", "SOURCE_DATE_EPOCH": str(self.epoch)}
        # chroot is looked up in the host's PATH, the tool in the tree's.
        return run(["/usr/bin/env", *enter, "/usr/bin/busybox", "sh", "-c", script, "sh", folder, *words], env=_path(env))


def _path(env: dict[str, str]) -> dict[str, str]:
    """The host's /usr/sbin is not in every user's PATH, and chroot lives there."""
    return {**env, "PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"}


def prepare(build: Path, name: str, packages: Sequence[Package], epoch: int) -> Tools:
    """The tree of these packages: the one from last time if it is made of the same, else a new one."""
    tree = build / f"tools-{name}"
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
