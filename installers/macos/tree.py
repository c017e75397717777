"""A folder as the three formats of a flat package see it: a list of entries, all root's, dated alike."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A file, folder or symbolic link. `name` is "." for the top, "./usr/local" and so on below it."""

    name: str
    mode: int  # type and permission bits, as in stat
    content: bytes  # of a file; a link's target

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


def read(root: Path) -> list[Entry]:
    """All that is below `root`, each folder before what is in it. Permissions are 755 or 644, whatever the umask was."""
    entries = [Entry(".", stat.S_IFDIR | 0o755, b"")]
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).parts):
        name = f"./{path.relative_to(root).as_posix()}"
        if path.is_symlink():
            entries.append(Entry(name, stat.S_IFLNK | 0o755, str(path.readlink()).encode()))
        elif path.is_dir():
            entries.append(Entry(name, stat.S_IFDIR | 0o755, b""))
        else:
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            entries.append(Entry(name, stat.S_IFREG | mode, path.read_bytes()))
    return entries


def kilobytes(entries: Sequence[Entry]) -> int:
    """What it takes on a disk, at least."""
    return sum(-(-len(entry.content) // 1024) for entry in entries)
