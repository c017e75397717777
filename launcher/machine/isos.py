"""The ISOs of this computer and the machines that need them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from launcher import config, host, store
from launcher.errors import IsoProblem, Refused, Usage, WherryError
from launcher.machine.create import creating
from launcher.report import Reporter

if TYPE_CHECKING:
    from launcher.images.prune import Item
    from launcher.images.verify import Verdict

_DAY: Final = 86400


@dataclass(frozen=True)
class Rebuild:
    """What came of building an ISO again; for rendering."""

    name: str
    expected: str
    sha256: str
    same: bool
    notes: tuple[str, ...]


def list_isos() -> list[dict[str, Any]]:
    """Every ISO in the cache as plain values, the damaged ones too; the newest first."""
    from launcher.images import cache, pins

    pinned, users, _ = set(pins.pinned().values()), *_users()
    found = []
    for sha256 in cache.names():
        origin = cache.origin(sha256)
        item: dict[str, Any] = {
            "sha256": sha256, "architecture": None, "version": None, "built": None, "age_days": None, "size": None,
            "unlocked": None, "origin": origin.get("origin"), "source": origin.get("url") or origin.get("path"),
            "imported": origin.get("imported", 0), "path": str(cache.folder() / sha256 / cache.ISO),
            "machines": sorted(users.get(sha256, ())), "pinned": sha256 in pinned, "problem": None,
        }  # fmt: skip
        try:
            iso = cache.by_sha(sha256)
        except IsoProblem as error:
            item["problem"] = error.message
        else:
            item |= {"architecture": iso.arch, "version": iso.version, "size": iso.path.stat().st_size}
            item |= {"built": iso.manifest.get("built"), "age_days": _age(iso.manifest.get("built"))}
            item["unlocked"] = iso.manifest.get("unlocked")
        found.append(item)
    return sorted(found, key=lambda item: item["imported"], reverse=True)


def missing_pins() -> list[str]:
    """Architectures whose ISO of this release is not here, though it could be had."""
    from launcher.images import cache, pins

    release = pins.release()
    return [arch for arch, pin in release.pins.items() if pin.sha256 not in cache.names() and release.mirrors]


def _age(built: object) -> int | None:
    try:
        made = datetime.fromisoformat(str(built))
    except ValueError:
        return None
    return max(0, int((time.time() - made.replace(tzinfo=made.tzinfo or UTC).timestamp()) // _DAY))


def _users() -> tuple[dict[str, set[str]], dict[str, WherryError]]:
    """Which machines need which ISO, and the machines of which that is not known."""
    users: dict[str, set[str]] = {}
    unknown: dict[str, WherryError] = {}
    for directory in store.machines():
        try:
            for sha256 in store.isos_needed(directory):
                users.setdefault(sha256, set()).add(directory.name)
        except WherryError as error:
            unknown[directory.name] = error
    return users, unknown


def pull(source: str | None, arch: str | None, report: Reporter) -> dict[str, Any]:
    """Have this release's ISO, or the one at an address, in the cache. Raises IsoProblem, Usage."""
    from launcher import images
    from launcher.images import source as sources

    if source is None:
        return _about(sources.pull(arch or _native(), report, images.Transport()))
    parsed = images.parse_source(source)
    if parsed.file is not None:
        raise Usage(f"{source} is no address.", hint=f"wherry iso import {source}")
    return _about(sources.obtain(parsed, arch, report, images.Transport()))


def import_iso(file: Path, report: Reporter) -> dict[str, Any]:
    """Take an ISO file into the cache; no network is used. Raises IsoProblem."""
    from launcher import images

    return _about(images.import_file(file, None, "file", report))


def build(arch: str | None, report: Reporter, *, shown: bool, fast: bool) -> dict[str, Any]:
    from launcher.images import build as builder

    return _about(builder.build(arch or _native(), report, shown=shown, fast=fast))


def _native() -> str:
    arch = host.native_arch()
    if arch not in config.ARCHES:
        raise Usage(f"there is no ISO for {arch}.", hint=f"--arch {' or '.join(config.ARCHES)}")
    return arch


def _about(iso: Any) -> dict[str, Any]:
    return {
        "sha256": iso.sha256, "architecture": iso.arch, "version": iso.version, "path": str(iso.path),
        "size": iso.path.stat().st_size,
    }  # fmt: skip


def verify(what: str | None, report: Reporter) -> list[Verdict]:
    """An ISO file, one in the cache by the beginning of its SHA-256, or all in the cache. Raises IsoProblem for another."""
    from launcher.images import cache
    from launcher.images import verify as verifier

    if what is not None and Path(what).is_file():
        return [verifier.file(Path(what), report)]
    return [verifier.in_cache(sha256, report) for sha256 in ([verifier.find(what)] if what else cache.names())]


def rebuild(what: str | None, name: str, report: Reporter, *, shown: bool) -> Rebuild:
    """Build an ISO again and compare: a file with its manifest, one in the cache, or by default that of the machine `name`."""
    from launcher.images import build as builder
    from launcher.images import cache, manifest
    from launcher.images import verify as verifier

    if what is not None and Path(what).is_file():
        said, shown_name = manifest.read(Path(what).with_suffix(".json")), what
    else:
        sha256 = verifier.find(what) if what else store.machine(name).read_config().iso
        said, shown_name = cache.by_sha(sha256).manifest, sha256[:12]
    done = builder.rebuild(said, report, shown=shown)
    return Rebuild(shown_name, done.expected, done.sha256, done.same, done.notes)


def prune(ask: Callable[[list[Item], dict[str, str]], bool], report: Reporter) -> list[Item] | None:
    """Remove what nothing needs, after `ask` was shown what goes and what stays (SHA-256 -> why); None when it said no.

    Raises Refused when it is not known what a machine needs, or while another command works on the cache.
    """
    from launcher.images import cache
    from launcher.images import prune as pruner

    with _quiet(report):
        keep = _keep()
        goes = pruner.items(keep)
        stays = {sha256: why for sha256, why in keep.items() if sha256 in cache.names()}
    if not goes:
        return []
    if not ask(goes, stays):
        return None
    removed = []
    with _quiet(report):
        # Whatever came to be needed while the question was open stays.
        for item in [item for item in pruner.items(_keep()) if item.path in {shown.path for shown in goes}]:
            pruner.remove(item)
            removed.append(item)
    return removed


def remove_all(report: Reporter) -> None:
    """Empty the cache: no machine needs any. Raises Refused while another command works on it."""
    from launcher.images import cache
    from launcher.images import prune as pruner

    if not cache.folder().exists():
        return
    with _quiet(report):
        for item in pruner.items({}):
            pruner.remove(item)


@contextmanager
def _quiet(report: Reporter) -> Iterator[None]:
    """Neither a machine is being made nor an ISO fetched."""
    from launcher.images import cache

    with creating(wait=False), cache.locked(report, wait=False):
        yield


def _keep() -> dict[str, str]:
    from launcher.images import pins, source

    users, unknown = _users()
    if unknown:
        name, error = next(iter(unknown.items()))
        raise Refused(
            f"nothing is removed: which ISO the machine {name!r} needs is not known.", detail=error.message,
            hint=error.hint or f"wherry status {name}",
        )  # fmt: skip
    keep = dict.fromkeys(pins.pinned().values(), "this release's")
    for arch in config.ARCHES:
        following = source.next_without_network(arch)
        if following is not None:
            keep.setdefault(following.sha256, "for new machines")
    return keep | {sha256: f"needed by {', '.join(sorted(names))}" for sha256, names in users.items()}
