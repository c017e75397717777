"""What every builder is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from installers import project, wheels
from installers.targets import Target


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
    quick: bool  # hardly compressed, for tests

    def wheels(self, target: str) -> list[Path]:
        """Wherry's and all that it depends on there. Raises BuildError."""
        return [self.wheel, *wheels.fetch(self.targets[target], self.lock, self.work / "wheels")]


@dataclass(frozen=True)
class Made:
    """A file for users, and the wheels in it."""

    path: Path
    wheels: tuple[Path, ...]


def prepare(targets: Mapping[str, Target], work: Path, output: Path, *, quick: bool = False) -> Context:
    """Builds the wheel. Raises BuildError."""
    lock = wheels.read_lock()
    epoch = project.epoch(lock.epoch)
    output.mkdir(parents=True, exist_ok=True)
    wheel = project.wheel(work / "wheel", epoch)
    return Context(project.version(), epoch, lock, targets, wheel, work.absolute(), output.absolute(), quick)
