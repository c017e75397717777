"""From an address into the cache: one command at a time, nothing half-written, and what came is kept when it breaks off."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from launcher import isofile
from launcher.errors import Interrupted, IsoProblem
from launcher.images import cache, manifest
from launcher.images.cache import Iso, Origin
from launcher.images.download import Wanted, download
from launcher.images.partial import Partial
from launcher.images.transport import Transport
from launcher.images.web import Hiccup, Unavailable, Web, without_password
from launcher.report import Reporter

# Kernel and initrd are taken out of the ISO, and the disk should not be full to the last byte.
_SPARE: Final = 64 << 20
_MOST_BESIDE: Final = 16 << 20  # bytes of a manifest or a list of contents
_FULL: Final = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


@dataclass(frozen=True)
class Order:
    """What is to be fetched."""

    urls: Sequence[str]  # asked in this order
    wanted: Wanted
    arch: str | None  # None: whatever it is for
    origin: Origin
    version: str  # for an ISO without a manifest
    manifest: str = ""  # SHA-256 of the manifest, when it is known


def fetch(order: Order, transport: Transport, report: Reporter) -> Iso:
    """The ISO, in the cache when this returns. Raises IsoProblem; Interrupted by Ctrl-C, with what came so far kept."""
    with cache.locked(report):
        try:
            return cache.by_sha(order.wanted.sha256)  # another command was faster
        except IsoProblem:
            pass
        with _opened(order) as partial:
            try:
                return _fetch(order, partial, transport, report)
            except KeyboardInterrupt:
                if partial.size == 0:
                    raise
                raise Interrupted(
                    f"the download stopped.{_kept(partial, order)}", hint="The same command goes on with it."
                ) from None
            except IsoProblem as error:
                raise IsoProblem(error.message + _kept(partial, order), hint=error.hint, detail=error.detail) from error
            except OSError as error:
                raise _disk_problem(error, partial) from error
            finally:
                if partial.size == 0:
                    partial.discard()


def _opened(order: Order) -> Partial:
    try:
        return Partial(cache.folder(), order.wanted.sha256)
    except OSError as error:
        raise IsoProblem(f"nothing can be kept in {cache.folder()}: {error}.") from error


def _fetch(order: Order, partial: Partial, transport: Transport, report: Reporter) -> Iso:
    _check_space(order.wanted, partial)
    url = download(order.urls, order.wanted, partial, transport, report)
    partial.sync()
    found = isofile.volume_arch(partial.path)
    if found is None or order.arch not in (None, found):
        partial.restart()
        what = "no ISO of wherry" if found is None else f"for {found}, not for {order.arch}"
        raise IsoProblem(f"what {without_password(url)} has is {what}.", hint=None if found is None else f"--arch {found}")
    beside = [url, *(other for other in order.urls if other != url)]
    said, sbom = _beside(beside, order, partial.size, found, transport, report)
    with cache.new() as temporary:
        partial.take(temporary / cache.ISO)
        source = {"origin": order.origin, "url": without_password(url), "imported": time.time()}
        return cache.take_in(temporary, said, source, sbom)


def _beside(
    urls: Sequence[str], order: Order, size: int, arch: str, transport: Transport, report: Reporter
) -> tuple[dict[str, Any], bytes | None]:
    """The manifest that lies beside the ISO, a minimal one when none fits; and the list of contents that it names."""
    with Web(transport) as web:
        for url in urls:
            data = _small(web, url, ".json")
            if data is None:
                continue
            try:
                return _fitting(data, url, order, size, arch), _sbom(web, url, json_data=data)
            except IsoProblem as error:
                report.warn(f"{error.message} The ISO itself is the right one; it is kept without a manifest.")
    return manifest.minimal(arch, order.version, order.wanted.sha256, size), None


def _fitting(data: bytes, url: str, order: Order, size: int, arch: str) -> dict[str, Any]:
    said = manifest.parse(data, f"the manifest beside {without_password(url)}")
    same = (said["sha256"], said["size"], said["architecture"]) == (order.wanted.sha256, size, arch)
    if not same or (order.manifest and hashlib.sha256(data).hexdigest() != order.manifest):
        raise IsoProblem(f"the manifest beside {without_password(url)} is that of another file.")
    return said


def _sbom(web: Web, url: str, json_data: bytes) -> bytes | None:
    said = manifest.parse(json_data, url)
    data = _small(web, url, ".cdx.json") if "sbom" in said else None
    return data if data is not None and manifest.sbom_fits(said, data) else None


def _small(web: Web, url: str, suffix: str) -> bytes | None:
    """A small file beside the ISO; None when it is not to be had."""
    base, _, query = url.partition("?")
    address = base.removesuffix(".iso") + suffix + (f"?{query}" if query else "")
    data = bytearray()
    try:
        with web.open(address) as response:
            for chunk in web.chunks(response, address) if response.status_code == 200 else ():
                data += chunk
                if len(data) > _MOST_BESIDE:
                    return None
            return bytes(data) if response.status_code == 200 else None
    except (Hiccup, Unavailable):
        return None


def _check_space(wanted: Wanted, partial: Partial) -> None:
    if wanted.size is None:
        return
    needed, free = wanted.size - partial.size + _SPARE, shutil.disk_usage(partial.path.parent).free
    if needed > free:
        raise IsoProblem(
            f"no space for the ISO: {needed / 1e6:.0f} MB are needed in {partial.path.parent}, {free / 1e6:.0f} MB are free.",
            hint="Make room there (wherry iso prune), or move it with WHERRY_HOME.",
        )


def _disk_problem(error: OSError, partial: Partial) -> IsoProblem:
    where: Path = partial.path.parent
    if error.errno in _FULL:
        # A disk that we filled is given its space back.
        size = partial.size
        partial.discard()
        return IsoProblem(
            f"the disk is full: {where} could take {size / 1e6:.0f} MB of the ISO and no more; they are removed.",
            hint="Make room there (wherry iso prune), or move it with WHERRY_HOME.",
        )
    return IsoProblem(f"the ISO cannot be kept in {where}: {os.strerror(error.errno) if error.errno else error}.")


def _kept(partial: Partial, order: Order) -> str:
    if partial.size == 0:
        return ""
    total = f" of {order.wanted.size / 1e6:.0f}" if order.wanted.size else ""
    return f" {partial.size / 1e6:.0f}{total} MB are kept and the next try goes on from there."
