"""Which packages a tree is made of: those of its lock, or what there is, with every difference told."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from builder.apt import Want, fetch, not_cached
from builder.lock import Lock, Package, differences, read_lock, write_lock
from builder.log import BuildError, say
from builder.recipe import Recipe


@dataclass(frozen=True)
class Chosen:
    """The packages of one tree, the lock they were chosen by, and in what they are not what it says."""

    packages: tuple[Package, ...]
    epoch: int
    lock: Path
    differences: tuple[str, ...] = ()


def host_arch() -> str:
    """Debian's name of this computer's architecture."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def root_want(recipe: Recipe, arch: str, engine_suite: str) -> Want:
    """What the image's root is made of."""
    engine = recipe.engine.get(engine_suite)
    if engine is None:
        raise BuildError(f"the recipe knows no engine from {engine_suite}")
    second, ours = ("", ()) if engine_suite == "stable" else (engine_suite, tuple(engine))
    names = (*recipe.packages, *engine, *recipe.loader[arch], recipe.kernel[arch])
    return Want(recipe.suite, arch, names, frozenset(recipe.skip), second, ours)


def tools_want(recipe: Recipe, host: str) -> Want:
    """What the tools tree of this host is made of."""
    cross = [name for arch, names in sorted(recipe.tools_cross.items()) if arch != host for name in names]
    return Want(recipe.suite, host, (*recipe.tools, *cross), frozenset(recipe.tools_skip), sources=tuple(recipe.sources))


def choose(want: Want, lock_file: Path, *, locked: bool = False, mirrors: Sequence[str] = ()) -> Chosen:
    """The locked packages where all can be had, else what there is. With `locked` a lock that is missing, or was made for
    another recipe, is a BuildError; packages that cannot be had are in `differences`, all of them, for the caller to refuse."""
    lock = read_lock(lock_file)
    if lock is None:
        if locked:
            raise BuildError(
                f"there is no {lock_file.name}, so nothing can be built as locked; a lock is made on amd64: make lock"
            )
        return Chosen(fetch(want, mirrors=mirrors), _now(), lock_file, (f"there is no {lock_file.name}",))
    stale = lock.request != want.digest
    if stale and locked:
        raise BuildError(f"{lock_file.name} was made for other packages than the recipe names now; to renew it: make lock")
    try:
        packages = fetch(want, lock.packages, mirrors, exact=not stale)
    except BuildError as error:
        raise BuildError(f"{error}\n{_lacking(lock)}") from error
    found = differences(lock.packages, packages)
    if stale:
        found.insert(0, f"{lock_file.name} was made for other packages than the recipe names now; to renew it: make lock")
    return Chosen(packages, lock.epoch, lock_file, tuple(found))


def refuse_differences(trees: Sequence[Chosen]) -> None:
    """Raises BuildError naming every package of any tree that is not as locked."""
    lines = [f"  {line}" for tree in trees for line in tree.differences]
    if lines:
        hint = "A mirror of that day still has them: --mirror. What there is now becomes the lock with: make lock"
        raise BuildError("not all of the lock can be had:\n" + "\n".join(lines) + f"\n{hint}")


def tell_differences(trees: Sequence[Chosen]) -> None:
    """One progress line for each."""
    for tree in trees:
        for line in tree.differences:
            say(f"not as locked: {line}")


def renew(want: Want, lock_file: Path, mirrors: Sequence[str] = ()) -> None:
    """Writes a lock of the newest packages; its date changes only when a package did."""
    old = read_lock(lock_file)
    packages = fetch(want, mirrors=mirrors)
    epoch = old.epoch if old and old.packages == packages else _now()
    write_lock(lock_file, Lock(epoch, want.digest, packages))
    changed = differences(old.packages if old else (), packages)
    for line in changed if old else ():
        say(f"lock: {line}")
    say(f"lock: wrote {lock_file.name}, {len(packages)} packages, {len(changed)} changed")


def renew_all(recipe: Recipe, folder: Path, mirrors: Sequence[str] = ()) -> None:
    """The locks of every image that the recipe can make, and of this host's tools."""
    host = host_arch()
    renew(tools_want(recipe, host), folder / f"tools-{host}.lock", mirrors)
    for arch in sorted(recipe.kernel):
        for suite in sorted(recipe.engine):
            renew(root_want(recipe, arch, suite), folder / f"{arch}-{suite}.lock", mirrors)


def _lacking(lock: Lock) -> str:
    names = [f"{package.name}:{package.architecture} {package.version}" for package in not_cached(lock.packages)]
    return f"{len(names)} of the {len(lock.packages)} locked packages are not in the cache: {', '.join(names)}"


def _now() -> int:
    return int(datetime.now(UTC).timestamp())
