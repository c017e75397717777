"""Which ISO a new machine is made with."""

from __future__ import annotations

from pathlib import Path

from launcher import __version__, guestfiles
from launcher.errors import IsoProblem
from launcher.images import cache
from launcher.images.cache import Iso
from launcher.images.importer import import_file
from launcher.report import Reporter


def resolve(arch: str, iso_file: Path | None, report: Reporter) -> Iso:
    """The ISO to make a machine with: the file given, else the newest of this version that the user imported, else the
    checkout's own. Raises IsoProblem when there is none or it does not verify."""
    if iso_file is not None:
        return import_file(iso_file, arch, "file", report)
    found = _newest_imported(arch)
    if found is not None:
        return found
    checkout = guestfiles.checkout()
    if checkout is None:
        raise IsoProblem(f"there is no ISO for {arch} here.", hint="wherry up --iso FILE")
    built = checkout / "build" / f"wherry-{arch}.iso"
    if not built.is_file():
        raise IsoProblem(f"there is no ISO for {arch} here.", hint=f"make iso{'' if arch == 'amd64' else f' ARCH={arch}'}")
    return import_file(built, arch, "checkout", report)


def _newest_imported(arch: str) -> Iso | None:
    found: list[tuple[float, Iso]] = []
    for iso, source in cache.everything():
        if source.get("origin") == "file" and (iso.arch, iso.version) == (arch, __version__):
            found.append((float(source.get("imported", 0)), iso))
    return max(found, key=lambda pair: pair[0])[1] if found else None
