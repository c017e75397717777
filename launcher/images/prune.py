"""What of the cache may go: ISOs that nothing needs, and what killed commands left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher import files, host
from launcher.errors import IsoProblem
from launcher.images import cache
from launcher.images.partial import PREFIX


@dataclass(frozen=True)
class Item:
    """Something that goes."""

    path: Path
    size: int  # bytes
    what: str


def items(keep: Mapping[str, str]) -> list[Item]:
    """What goes when the ISOs in `keep` (SHA-256 -> why) stay. The caller holds the cache's lock."""
    found = []
    for sha256 in cache.names():
        if sha256 not in keep:
            home = cache.folder() / sha256
            found.append(Item(home, _size(home), _describe(sha256)))
    for part in sorted(cache.folder().glob(f"{PREFIX}*")):
        if part.suffix != ".json":
            found.append(Item(part, _size(part), "a download that broke off"))
        elif not part.with_suffix("").exists():
            found.append(Item(part, _size(part), "a note on a download"))
    for folder in (cache.folder(), *(cache.folder() / sha256 for sha256 in cache.names() if sha256 in keep)):
        found += [Item(left, _size(left), "left by a command that was killed") for left in files.leftovers(folder)]
    return found


def remove(item: Item) -> None:
    """At once, as far as another command can see. The caller holds the cache's lock. Raises OSError."""
    if item.path.is_dir():
        doomed = item.path.with_name(f"{cache.IMPORT_PREFIX}{item.path.name[:12]}.deleted")
        host.current().rename(item.path, doomed)
        host.current().remove_tree(doomed)
        return
    item.path.unlink(missing_ok=True)
    item.path.with_name(f"{item.path.name}.json").unlink(missing_ok=True)


def _describe(sha256: str) -> str:
    try:
        iso = cache.by_sha(sha256)
    except IsoProblem:
        return f"ISO {sha256[:12]}, damaged"
    return f"ISO {sha256[:12]}, wherry {iso.version} {iso.arch}"


def _size(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in inside if file.is_file())
