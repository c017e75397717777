"""Pythons for macOS, made on Linux of what PyPI has, and kept in build/macos/. Nothing here can run them.

    KEY/arm64, KEY/amd64    bin/python3, lib/libpython3.N.dylib, lib/python3.N with its modules in lib-dynload
    KEY/complete            both are done

The libraries and modules are those that the wheel of panda3d carries; lib/python3.N is that of the Python that runs this, which
must have the same minor version; bin/python3 is ours, compiled by Zig. `python -m tests.macos.fixture` makes it and prints
where it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
CACHE: Final = HERE.parent.parent / "build/macos"
_SECONDS: Final = 900  # downloads of 220 MB among it
_MINOR: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_LIBRARY: Final = f"libpython{_MINOR}.dylib"
_MINORS: Final = ("3.11", "3.12", "3.13")
_ARCHES: Final = {"arm64": "aarch64-macos.11.0", "amd64": "x86_64-macos.10.15"}
_NOT_COPIED: Final = ("lib-dynload", "site-packages", "dist-packages", "test", "idlelib", "tkinter", "turtledemo", "config-*",
                      "__pycache__", "sitecustomize.py", "_sysconfigdata_*", "*.a", "*.so")  # fmt: skip
_LEFT_OUT: Final = r"_test.*|_xx.*|xx.*|_ctypes_test|_tkinter"  # modules


def missing() -> str | None:
    """Why none can be made on this computer."""
    if not sys.platform.startswith("linux"):
        return "it is made on Linux"
    return None if _MINOR in _MINORS else f"there are libraries of Python {', '.join(_MINORS)}, this is {_MINOR}"


@cache
def pythons() -> dict[str, Path]:
    """A folder for each processor, made now if it is not there. Raises RuntimeError where `missing` tells why not."""
    if why := missing():
        raise RuntimeError(why)
    folder = CACHE / _key()
    CACHE.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(CACHE / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            for old in CACHE.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            _make(folder)
            (folder / "complete").touch()
    finally:
        os.close(descriptor)
    return {arch: folder / arch for arch in _ARCHES}


def _key() -> str:
    digest = hashlib.sha256(sys.version.encode())
    for name in ("fixture.py", "python.txt", "compiler.txt", "python.c"):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:16]


def _make(folder: Path) -> None:
    folder.mkdir()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        wheel = _fetch(
            work, "python.txt", "--platform", "macosx_11_0_universal2", "--python-version", _MINOR, "--implementation", "cp"
        )
        zig = _zig(work)
        for arch, target in _ARCHES.items():
            _lay_out(folder / arch, wheel)
            _compile(zig, target, folder / arch / "bin/python3", work)


def _fetch(work: Path, pins: str, *words: str) -> Path:
    """The one wheel that is pinned for this computer or for `words`."""
    place = work / pins
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes",
         "--only-binary=:all:", *words, "--dest", place, "-r", HERE / pins],
        check=True, timeout=_SECONDS,
    )  # fmt: skip
    [wheel] = place.glob("*.whl")
    return wheel


def _zig(work: Path) -> Path:
    with zipfile.ZipFile(_fetch(work, "compiler.txt")) as archive:
        archive.extractall(work / "zig")  # it is pinned
    program = work / "zig/ziglang/zig"
    program.chmod(0o755)
    return program


def _lay_out(root: Path, wheel: Path) -> None:
    home = root / "lib" / f"python{_MINOR}"
    shutil.copytree(Path(os.__file__).parent, home, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    for folder in (root / "bin", home / "lib-dynload", home / "site-packages"):
        folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            place, _, file = name.rpartition("/")
            if place == "deploy_libs" and not re.match(rf"({_LEFT_OUT})\.cpython-", file):
                target = root / "lib" if file == _LIBRARY else home if file.endswith(".py") else home / "lib-dynload"
                (target / file).write_bytes(archive.read(name))
                (target / file).chmod(0o644 if file.endswith(".py") else 0o755)


def _compile(zig: Path, target: str, program: Path, work: Path) -> None:
    """What Zig keeps between calls goes with it."""
    kept = {"ZIG_GLOBAL_CACHE_DIR": str(work / "kept"), "ZIG_LOCAL_CACHE_DIR": str(work / "kept")}
    words = ["-target", target, "-O2", "-s", "-Wall", "-Wextra", "-Werror", f'-DPYTHON_LIBRARY="{_LIBRARY}"']
    subprocess.run(
        [zig, "cc", *words, "-o", program, HERE / "python.c"], check=True, env={**os.environ, **kept}, timeout=_SECONDS
    )


if __name__ == "__main__":
    print(next(iter(pythons().values())).parent)
