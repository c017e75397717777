"""Thousands of random operations on a share and on a folder beside it give the same, as fsx does for one file."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from .sharemount import CHECKED, Everything, Mount, mounted


class Pair:
    """The same operation on both; what one raises the other has to raise."""

    def __init__(self, one: Path, two: Path, chance: random.Random) -> None:
        self.places = (one, two)
        self.chance = chance
        self.names = [f"{folder}{name}" for folder in ("", "d/", "e/", "d/s/") for name in "abc"] + ["d", "e", "d/s"]
        self.open: list[tuple[int, int]] = []

    def both(self, call: Callable[[Path], object]) -> object:
        results = []
        for place in self.places:
            try:
                results.append(call(place))
            except OSError as error:
                results.append(error.errno)
        assert results[0] == results[1]
        return results[0]

    def step(self) -> None:
        kinds = "write write append read read truncate rename unlink mkdir rmdir link symlink stat list chmod utime"
        kind = self.chance.choice(f"{kinds} open_ open_ handle handle handle handle close".split())
        getattr(self, kind)()

    def name(self) -> str:
        return self.chance.choice(self.names)

    def data(self) -> bytes:
        return self.chance.randbytes(self.chance.choice((0, 1, 100, 4096, 5000, 70_000, 300_000)))

    def write(self) -> None:
        name, data = self.name(), self.data()
        self.both(lambda place: (place / name).write_bytes(data))

    def append(self) -> None:
        name, data = self.name(), self.data()

        def call(place: Path) -> None:
            with (place / name).open("ab") as file:
                file.write(data)

        self.both(call)

    def read(self) -> None:
        name = self.name()
        self.both(lambda place: (place / name).read_bytes())

    def truncate(self) -> None:
        name, size = self.name(), self.chance.choice((0, 10, 4096, 100_000))
        self.both(lambda place: os.truncate(place / name, size))

    def rename(self) -> None:
        old, new = self.name(), self.name()
        self.both(lambda place: os.rename(place / old, place / new))

    def unlink(self) -> None:
        name = self.name()
        self.both(lambda place: os.unlink(place / name))

    def mkdir(self) -> None:
        name = self.name()
        self.both(lambda place: os.mkdir(place / name))

    def rmdir(self) -> None:
        name = self.name()
        self.both(lambda place: os.rmdir(place / name))

    def link(self) -> None:
        old, new = self.name(), self.name()
        self.both(lambda place: os.link(place / old, place / new, follow_symlinks=False))

    def symlink(self) -> None:
        target, new = self.chance.choice("abcde"), self.name()
        self.both(lambda place: os.symlink(target, place / new))

    def chmod(self) -> None:
        name, mode = self.name(), self.chance.choice((0o600, 0o755, 0o444))
        self.both(lambda place: os.chmod(place / name, mode))

    def utime(self) -> None:
        name, when = self.name(), self.chance.getrandbits(60)
        self.both(lambda place: os.utime(place / name, ns=(when, when + 1)))
        self.both(lambda place: (place / name).stat().st_mtime_ns == when + 1)

    def stat(self) -> None:
        name = self.name()
        self.both(lambda place: shown(os.lstat(place / name)))

    def list(self) -> None:
        name = self.chance.choice(("", "d", "e", "d/s"))
        self.both(lambda place: listed(place / name))

    def open_flags(self) -> int:
        return self.chance.choice((os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_TRUNC))

    def open_(self) -> None:
        if len(self.open) > 8:
            return
        name, flags = self.name(), self.open_flags()
        ends: list[int] = []
        try:
            self.both(lambda place: ends.append(os.open(place / name, flags | os.O_NOFOLLOW)))
        finally:
            if len(ends) == 2:
                self.open.append((ends[0], ends[1]))

    def handle(self) -> None:
        if not self.open:
            return
        ends = dict(zip(self.places, self.chance.choice(self.open), strict=True))
        offset, data = self.chance.randrange(400_000), self.data()
        kind = self.chance.choice(("read", "read", "write", "write", "truncate", "fstat", "fsync"))
        if kind == "read":
            self.both(lambda place: os.pread(ends[place], len(data), offset))
        elif kind == "write":
            self.both(lambda place: os.pwrite(ends[place], data, offset))
        elif kind == "truncate":
            self.both(lambda place: os.ftruncate(ends[place], offset))
        elif kind == "fsync":
            self.both(lambda place: os.fsync(ends[place]))
        else:
            self.both(lambda place: shown(os.fstat(ends[place])))

    def close(self) -> None:
        if self.open:
            for end in self.open.pop(self.chance.randrange(len(self.open))):
                os.close(end)

    def same(self) -> None:
        one, two = (tree(place) for place in self.places)
        assert one == two


def shown(found: os.stat_result) -> tuple[int, ...]:
    folder = stat.S_ISDIR(found.st_mode)
    return (found.st_mode, 0 if folder else found.st_size, 0 if folder else found.st_nlink)


def listed(folder: Path) -> list[tuple[str, bool]]:
    with os.scandir(folder) as found:
        return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)


def tree(place: Path) -> dict[str, tuple[tuple[int, ...], object]]:
    found: dict[str, tuple[tuple[int, ...], object]] = {}
    for folder, folders, files in os.walk(place):
        for name in (*folders, *files):
            path = Path(folder, name)
            mode = os.lstat(path).st_mode
            content: object = None
            if stat.S_ISLNK(mode):
                content = os.readlink(path)
            elif stat.S_ISREG(mode):
                content = path.read_bytes()
            found[str(path.relative_to(place))] = (shown(os.lstat(path)), content)
    return found


def kinds(place: Path) -> dict[str, object]:
    return {name: (stat.S_IFMT(mode), *rest, content) for name, ((mode, *rest), content) in tree(place).items()}


def run(mount: Mount, plain: Path, seed: int, steps: int) -> None:
    plain.mkdir()
    pair = Pair(mount.path, plain, random.Random(seed))
    try:
        for _ in range(steps):
            pair.step()
    finally:
        for ends in pair.open:
            for end in ends:
                os.close(end)
    pair.same()
    # Modes that a user could lock himself out with are shown to the guest alone.
    assert kinds(mount.host) == kinds(plain)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_random_operations_under_the_checks(tmp_path: Path, seed: int, watched: bool) -> None:
    with mounted(tmp_path, *CHECKED, serve=False) as mount:
        mount.serve(Everything() if watched else None)
        run(mount, tmp_path / "plain", seed, 1500)


def test_random_operations_as_built(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        run(mount, tmp_path / "plain", 77, 4000)
