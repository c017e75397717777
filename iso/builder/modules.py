"""Chooses kernel modules: an explicit list and what it depends on, unpacked, since the squashfs compresses anyway."""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from builder.log import BuildError
from builder.tools import Tools

_FROM_KERNEL = ("modules.builtin", "modules.builtin.modinfo", "modules.order")
_KEPT_INDEXES = (*_FROM_KERNEL, "modules.alias", "modules.dep", "modules.softdep", "modules.symbols")


def _plain(name: str) -> str:
    """The module's name of a file name or an alias: `-` and `_` are the same to the kernel."""
    return Path(name).name.split(".ko")[0].replace("-", "_")


@dataclass(frozen=True)
class Kernel:
    """The modules that a kernel package brings."""

    version: str
    folder: Path
    needs: dict[str, list[str]]
    files: dict[str, str]
    builtin: frozenset[str]

    def closure(self, names: Iterable[str], never: Iterable[str]) -> list[str]:
        """The named modules and all that they need, each after what it needs."""
        banned = {_plain(name) for name in never}
        chosen: list[str] = []
        missing: list[str] = []
        for name in names:
            plain = _plain(name.removeprefix("?"))
            if plain in self.files:
                self._add(plain, chosen, banned)
            elif plain not in self.builtin and not name.startswith("?"):
                missing.append(plain)
        if missing:
            raise BuildError(f"the kernel {self.version} has no module {', '.join(missing)}")
        return chosen

    def _add(self, name: str, chosen: list[str], banned: set[str]) -> None:
        if name in chosen:
            return
        if name in banned:
            raise BuildError(f"module {name} must not be in the image, but something chosen needs it")
        for need in self.needs[name]:
            self._add(need, chosen, banned)
        chosen.append(name)


def read_kernel(tools: Tools, tree: Path) -> Kernel:
    """Reads the modules of an unpacked kernel package."""
    folders = sorted((tree / "usr/lib/modules").iterdir())
    if len(folders) != 1:
        raise BuildError(f"expected one kernel, found {len(folders)}")
    tools.run("depmod", "-b", tree, folders[0].name)
    needs, files = {}, {}
    for line in (folders[0] / "modules.dep").read_text(encoding="ascii").splitlines():
        path, _, rest = line.partition(":")
        needs[_plain(path)] = [_plain(word) for word in rest.split()]
        files[_plain(path)] = path
    builtin = (folders[0] / "modules.builtin").read_text(encoding="ascii").split()
    return Kernel(folders[0].name, folders[0], needs, files, frozenset(map(_plain, builtin)))


def copy_module(kernel: Kernel, name: str, target: Path) -> None:
    """One module, unpacked."""
    source = kernel.folder / kernel.files[name]
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".xz":
        with lzma.open(source) as packed, target.open("wb") as out:
            shutil.copyfileobj(packed, out)
    else:
        shutil.copyfile(source, target)
    target.chmod(0o644)


def install_modules(tools: Tools, kernel: Kernel, names: Iterable[str], root: Path) -> None:
    """The chosen modules below root, with the indexes that busybox's modprobe reads."""
    folder = root / "usr/lib/modules" / kernel.version
    for name in names:
        copy_module(kernel, name, folder / kernel.files[name].removesuffix(".xz"))
    for name in _FROM_KERNEL:
        shutil.copyfile(kernel.folder / name, folder / name)
    tools.run("depmod", "-b", root, kernel.version)
    for index in sorted(folder.glob("modules.*")):
        if index.name in _KEPT_INDEXES:
            index.chmod(0o644)
        else:
            index.unlink()
