"""The wheels that go into installers: pinned in wheels.toml, fetched by pip, unpacked into one folder of packages."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Final

from installers.targets import Target
from installers.tools import BuildError, run, say, sha256

LOCK: Final = Path(__file__).with_name("wheels.toml")
# What a merged folder cannot have once for all Pythons, and nothing reads at run time.
_OF_ONE_WHEEL: Final = {"RECORD", "WHEEL", "INSTALLER"}


@dataclass(frozen=True, order=True)
class Wheel:
    """A pinned file of the package index."""

    file: str
    sha256: str

    @property
    def name(self) -> str:
        """As in a requirement: `backports-zstd`."""
        return re.sub(r"[-_.]+", "-", self.file.split("-")[0]).lower()

    @property
    def version(self) -> str:
        return self.file.split("-")[1]


@dataclass(frozen=True)
class Lock:
    """wheels.toml: `epoch` is when the wheels were chosen, seconds; it dates what is built from them."""

    epoch: int
    wheels: Mapping[str, tuple[Wheel, ...]]


def read_lock(path: Path = LOCK) -> Lock:
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    made = document.pop("made")
    assert isinstance(made, datetime)
    return Lock(
        int(made.timestamp()), {target: tuple(Wheel(*pin) for pin in sorted(pins.items())) for target, pins in document.items()}
    )


def fetch(target: Target, lock: Lock, cache: Path) -> list[Path]:
    """The target's wheels as files of `cache`, each checked against its pin. Raises BuildError.

    pip is asked for what is not there, with the hashes, so that of several files of a release it takes the pinned one.
    """
    pins = lock.wheels[target.name]
    cache.mkdir(parents=True, exist_ok=True)
    for python in target.pythons:
        missing = [pin for pin in pins if not (cache / pin.file).exists() and serves(pin.file, python)]
        if missing:
            _download(target, python, missing, cache)
    return [_checked(cache / pin.file, pin) for pin in pins]


def serves(file: str, python: str) -> bool:
    """Whether a wheel runs on this Python, by the tags in its name: cp313-cp313, cp311-abi3, py3-none, py2.py3-none."""
    tags, abi = file.removesuffix(".whl").split("-")[-3:-1]
    minor = int(python.split(".")[1])
    for tag in tags.split("."):
        if tag == "py3" or tag == f"cp3{minor}":
            return True
        if abi == "abi3" and tag.startswith("cp3") and int(tag[3:]) <= minor:
            return True
    return False


def _download(target: Target, python: str, missing: Iterable[Wheel], cache: Path) -> None:
    wanted: dict[str, list[str]] = {}
    for pin in missing:
        wanted.setdefault(f"{pin.name}=={pin.version}", []).append(f"--hash=sha256:{pin.sha256}")
    say(f"fetching {len(wanted)} wheels for {target.name}, Python {python}")
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        listing = Path(folder) / "requirements.txt"
        listing.write_text("".join(f"{name} {' '.join(hashes)}\n" for name, hashes in wanted.items()))
        arriving = Path(folder) / "arriving"
        run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes",
             *choice(target, python), "-d", arriving, "-r", listing])  # fmt: skip
        for path in arriving.iterdir():
            path.replace(cache / path.name)


def choice(target: Target, python: str) -> list[str]:
    """The words by which pip chooses wheels for another system."""
    platforms = [word for platform in target.platforms for word in ("--platform", platform)]
    return ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms]


def _checked(path: Path, pin: Wheel) -> Path:
    if not path.exists():
        raise BuildError(f"pip did not give {pin.file}: python -m installers lock renews the pins")
    if sha256(path) != pin.sha256:
        path.unlink()
        raise BuildError(f"{pin.file} is not the file that is pinned; it is removed, the next build fetches it again")
    return path


def unpack(wheels: Iterable[Path], folder: Path) -> None:
    """What an installation of all of them has in site-packages, without their scripts. Raises BuildError.

    Wheels of one version for several Pythons may be among them: their modules have different names.
    """
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for info in archive.infolist():
                target = _place(info.filename)
                if target is not None and not info.is_dir():
                    _put(archive, info, folder / target, wheel)


def _place(name: str) -> PurePosixPath | None:
    """Where in site-packages a file of a wheel goes; None when it does not. Raises BuildError for a path that leads out."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise BuildError(f"a wheel has a file called {name}")
    if path.parts[0].endswith(".data"):
        return PurePosixPath(*path.parts[2:]) if path.parts[1] in ("purelib", "platlib") else None
    if path.parts[0].endswith(".dist-info") and path.name in _OF_ONE_WHEEL:
        return None
    return path


def _put(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, wheel: Path) -> None:
    content = archive.read(info)
    if target.exists():
        if target.read_bytes() != content:
            raise BuildError(f"{wheel.name} and a wheel before it have different files {info.filename}")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    target.chmod(0o755 if info.external_attr >> 16 & 0o100 else 0o644)


def clear(folder: Path) -> Path:
    """The folder, empty."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder
