"""The lock: which exact packages an image is made of. One text line each, no host names, sorted, easy to review."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from builder.log import BuildError

_HEAD = "# Written by iso/build.py --lock-update. Columns: name version architecture suite sha256.\n"


@dataclass(frozen=True, order=True)
class Package:
    """One binary package; sha256 is empty while it has only been planned."""

    name: str
    version: str
    architecture: str
    suite: str
    sha256: str = ""

    @property
    def file_name(self) -> str:
        """The name that apt gives to the file; of a source package we use the upstream part alone."""
        if self.architecture == "source":
            return f"{self.name}_{self.version}.orig.tar.xz"
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"

    @property
    def key(self) -> tuple[str, str]:
        """What stays the same when the version changes."""
        return self.name, self.architecture


@dataclass(frozen=True)
class Lock:
    """All packages of one tree, the time that its files carry, and a digest of what had been asked for."""

    epoch: int
    request: str
    packages: tuple[Package, ...]


def read_lock(path: Path) -> Lock | None:
    """The lock in a file, None when there is none yet."""
    if not path.exists():
        return None
    epoch, request, packages = 0, "", []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split()
        if fields[:2] == ["#", "date:"]:
            epoch = int(datetime.fromisoformat(fields[2]).timestamp())
        elif fields[:2] == ["#", "request:"]:
            request = fields[2]
        elif fields and not line.startswith("#"):
            if len(fields) != 5:
                raise BuildError(f"{path.name}, line {number}: expected 5 columns")
            packages.append(Package(*fields))
    return Lock(epoch, request, tuple(sorted(packages)))


def write_lock(path: Path, lock: Lock) -> None:
    """Writes the file whole or not at all."""
    date = datetime.fromtimestamp(lock.epoch, UTC).isoformat()
    rows = [f"{p.name} {p.version} {p.architecture} {p.suite} {p.sha256}\n" for p in sorted(lock.packages)]
    fresh = path.with_suffix(".new")
    fresh.parent.mkdir(parents=True, exist_ok=True)
    fresh.write_text(f"{_HEAD}# date: {date}\n# request: {lock.request}\n{''.join(rows)}", encoding="utf-8")
    fresh.replace(path)


def differences(locked: Iterable[Package], found: Iterable[Package]) -> list[str]:
    """What an image made of `found` has that the lock does not say, one line each."""
    old = {package.key: package for package in locked}
    new = {package.key: package for package in found}
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after, name = old.get(key), new.get(key), ":".join(key)
        if before is None:
            lines.append(f"{name} {new[key].version} is not in the lock")
        elif after is None:
            lines.append(f"{name} {before.version} is in the lock, and nothing needs it")
        elif before.version != after.version:
            lines.append(f"{name} {before.version} is not to be had, there is {after.version}")
        elif before.sha256 != after.sha256:
            lines.append(f"{name} {before.version} has other bytes than the locked ones")
    return lines
