"""work.py make KIND FOLDER | time WORK FOLDER: the work that shares are timed by. `time` prints seconds.

Needs nothing but Python 3.9 and the usual programs, and runs as it is in a container, there privileged: what is measured cold
begins with the kernel's caches dropped.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

MEGABYTES = 64
COUNTS = {"small": 3000, "many": 10_000, "repo": 10_000, "huge": 100_000, "npm": 5000}
CHANCE = random.Random(7)


def make(kind: str, folder: Path, count: int = 0) -> None:
    """What the work needs. The same bytes each time."""
    folder.mkdir(parents=True, exist_ok=True)
    count = count or COUNTS.get(kind, 0)
    if kind == "big":
        with (folder / "big").open("wb") as file:
            for _ in range(MEGABYTES):
                file.write(CHANCE.randbytes(1 << 20))
    elif kind == "npm":
        _npm(folder / "npm.tar", count)
    else:
        for number in range(count):
            place = folder / f"d{number // 100}" / f"f{number % 100}.js"
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(CHANCE.randbytes(1 + CHANCE.randrange(8000)) if kind == "small" else b"%d\n" % number)
    if kind == "repo":
        own = ("-c", "user.name=Nobody", "-c", "user.email=n@example.org")
        for words in (("init", "-q"), ("add", "-A"), (*own, "commit", "-q", "-m", "all")):
            subprocess.run(["git", *words], cwd=folder, check=True)


def _npm(target: Path, count: int) -> None:
    """As node_modules is: some hundred packages, most files small, some folders deep."""
    import io

    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(count):
            below = "/".join(("lib", "dist", "esm")[: number % 4])
            member = tarfile.TarInfo(f"node_modules/package{number // 12}/{below + '/' if below else ''}file{number}.js")
            member.size, member.mtime = int(CHANCE.paretovariate(1.2) * 300) % 20_000, 1_700_000_000 + number
            archive.addfile(member, io.BytesIO(bytes(member.size)))


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def shell(script: str, folder: Path) -> None:
    subprocess.run(["sh", "-euc", script], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def read(folder: Path) -> None:
    with (folder / "big").open("rb", buffering=0) as file:
        total = 0
        while data := file.read(1 << 20):
            total += len(data)
    assert total == MEGABYTES << 20, total


def write(folder: Path) -> None:
    data = bytes(range(256)) * 4096
    with (folder / "written").open("wb", buffering=0) as file:
        for _ in range(MEGABYTES):
            file.write(data)
        os.fsync(file.fileno())


def unpack(folder: Path) -> None:
    """Each time into a folder of its own."""
    target = folder / f"unpacked-{time.monotonic_ns()}"
    target.mkdir()
    shell(f"tar -C {target} -xf /tmp/npm.tar", folder)


# What is done, whether the caches are dropped before.
WORKS: dict[str, tuple[Callable[[Path], None], bool]] = {
    "read": (read, True),
    "write": (write, True),
    "tar": (lambda folder: shell("tar -cf - . | cat >/dev/null", folder), True),
    "find": (lambda folder: shell("find . -type f", folder), True),
    "find again": (lambda folder: shell("find . -type f", folder), False),
    "du": (lambda folder: shell("du -s .", folder), True),
    "du again": (lambda folder: shell("du -s .", folder), False),
    "unpack": (unpack, False),
    "git status": (lambda folder: shell("git status --porcelain", folder), False),
}


def main() -> int:
    verb, name, place = sys.argv[1:4]
    folder = Path(place)
    if verb == "make":
        make(name, folder, int(sys.argv[4]) if len(sys.argv) > 4 else 0)
        return 0
    work, cold = WORKS[name]
    if cold:
        drop_caches()
    began = time.perf_counter()
    work(folder)
    print(time.perf_counter() - began)
    return 0


if __name__ == "__main__":
    sys.exit(main())
