"""What every builder is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from installers import project, wheels
from installers.targets import Target
from installers.tools import run


@dataclass(frozen=True)
class Context:
    """One run: what is built, when it is dated, where it is kept and where it goes."""

    version: str
    epoch: int
    lock: wheels.Lock
    targets: Mapping[str, Target]
    wheel: Path  # wherry's own
    work: Path
    output: Path
    cache: Path  # wheels that were fetched
    quick: bool = False  # hardly compressed, for tests
    pythons: Mapping[str, Path] = field(default_factory=dict)  # of a target: a folder with a Python for it
    qemus: Mapping[str, Path] = field(default_factory=dict)  # of a target: a folder with a QEMU for it
    isos: Mapping[str, Path] = field(default_factory=dict)  # of an architecture: the ISO of the full editions
    sign: Path | None = None  # a program: `tree DIR` before the files are packed, `file PATH` after
    address: str = "https://releases.wherry.invalid/VERSION"  # where the files will be, for those that name others

    @property
    def license(self) -> Path:
        return project.ROOT / "LICENSE"

    @property
    def folder(self) -> str:
        """The address below which this version's files are."""
        return self.address.replace("VERSION", self.version).rstrip("/")

    def signed(self, what: str, path: Path) -> None:
        """Has the release's own program sign a `tree` or a `file`; without one nothing is signed. Raises BuildError."""
        if self.sign:
            run([self.sign.absolute(), what, path])

    def wheels(self, target: str) -> list[Path]:
        """Wherry's and all that it depends on there. Raises BuildError."""
        return [self.wheel, *wheels.fetch(self.targets[target], self.lock, self.cache)]


@dataclass(frozen=True, order=True)
class Part:
    """What is in an installer beside wheels: a Python, a QEMU, an ISO. `file` is the one that tells them apart."""

    name: str
    version: str
    file: Path


@dataclass(frozen=True)
class Made:
    """A file for users, the wheels in it, and what else is in it."""

    path: Path
    wheels: tuple[Path, ...]
    parts: tuple[Part, ...] = ()


def prepare(targets: Mapping[str, Target], work: Path, output: Path, cache: Path | None = None, **more: Any) -> Context:
    """Builds the wheel. `more` are further fields of Context. One run at a time has a `work`; a cache may be shared.

    Raises BuildError.
    """
    lock = wheels.read_lock()
    epoch = project.epoch(lock.epoch)
    output.mkdir(parents=True, exist_ok=True)
    kept = cache or work / "wheels"
    wheel = project.wheel(work / "wheel", epoch)
    return Context(project.version(), epoch, lock, targets, wheel, work.absolute(), output.absolute(), kept.absolute(), **more)
