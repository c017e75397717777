"""Which ISO a new machine is made with, and where it comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from launcher import __version__, guestfiles
from launcher.errors import IsoProblem, Usage
from launcher.images import cache, manifest, pins
from launcher.images.cache import Iso
from launcher.images.importer import import_file
from launcher.images.pins import Pin, Release
from launcher.images.transport import Transport
from launcher.report import Reporter

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


@dataclass(frozen=True)
class IsoSource:
    """What a user names: a file, or an address with the SHA-256 of what has to come from there."""

    file: Path | None = None
    url: str = ""
    sha256: str = ""


def parse_source(text: str, what: str = "ISO") -> IsoSource:
    """FILE or URL#sha256=HEX, of an ISO or `what` else. Raises Usage for an address without a hash.

    http is as good as https here: what comes is what the hash says, or it is refused.
    """
    scheme = _SCHEME.match(text)
    if scheme is None:
        return IsoSource(file=Path(text))
    if scheme[1].lower() not in ("https", "http"):
        raise Usage(f"{text}: the {what} comes from a file, or by https or http.")
    url, _, fragment = text.partition("#")
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if match is None:
        why = f"an address needs the SHA-256 of the {what}" if not fragment else "that is no SHA-256"
        raise Usage(f"{text}: {why}.", hint=f"{url}#sha256=… (64 hex digits; sha256sum FILE tells them)")
    return IsoSource(url=url, sha256=match[1].lower())


def resolve(arch: str, wanted: IsoSource | str | Path | None, report: Reporter, transport: Transport | None = None) -> Iso:
    """The ISO to make a machine with: what is wanted (a file, or an address with a hash), else the one that this release is
    pinned to, from the cache or a mirror. Without a pin the newest of this version that the user imported, else the
    checkout's own.

    Raises IsoProblem when there is none or it does not verify.
    """
    transport = transport or Transport()
    if wanted is not None:
        return obtain(wanted if isinstance(wanted, IsoSource) else parse_source(str(wanted)), arch, report, transport)
    release = pins.release()
    pin = release.pins.get(arch)
    if pin is not None:
        found = _pinned(pin, release, arch, report, transport)
        if found is not None:
            return found
    return _newest_imported(arch) or _built(arch, report)


def obtain(source: IsoSource, arch: str | None, report: Reporter, transport: Transport) -> Iso:
    """The ISO that a user named. Raises IsoProblem."""
    if source.file is not None:
        return import_file(source.file, arch, "file", report)
    found = _cached(source.sha256)
    if found is None:
        from launcher.images.download import Wanted
        from launcher.images.fetch import Order, fetch

        order = Order([source.url], Wanted(source.sha256, None), arch, "url", "unknown")
        found = fetch(order, transport, report)
    if arch not in (None, found.arch):
        raise IsoProblem(f"what is asked for is for {found.arch}, not for {arch}.", hint=f"--arch {found.arch}")
    return found


def restore(sha256: str, arch: str, report: Reporter, transport: Transport | None = None) -> None:
    """Have a machine's ISO again after the cache was emptied, if this release is pinned to it or the checkout built it.

    Else nothing happens. Raises IsoProblem when it cannot be fetched.
    """
    if _cached(sha256) is not None:
        return
    release = pins.release()
    pin = release.pins.get(arch)
    if pin is not None and pin.sha256 == sha256:
        _fetch_pinned(pin, release, arch, report, transport or Transport())
        return
    built = _built_file(arch)
    if built is not None and _sha_said(built) == sha256:
        import_file(built, arch, "checkout", report)


def _sha_said(built: Path) -> str:
    try:
        return str(manifest.read(built.with_suffix(".json"))["sha256"])
    except IsoProblem:
        return ""


def pull(arch: str, report: Reporter, transport: Transport) -> Iso:
    """The ISO of this release, in the cache when this returns. Raises IsoProblem."""
    release = pins.release()
    pin = release.pins.get(arch)
    if pin is None:
        raise IsoProblem(
            f"{pins.file().name} of this wherry has no ISO for {arch}.",
            hint="wherry iso import FILE, or wherry iso pull URL#sha256=…",
        )
    return _cached(pin.sha256) or _fetch_pinned(pin, release, arch, report, transport)


def _pinned(pin: Pin, release: Release, arch: str, report: Reporter, transport: Transport) -> Iso | None:
    """None where a checkout has something else to offer."""
    found = _cached(pin.sha256)
    if found is not None:
        return found
    try:
        return _fetch_pinned(pin, release, arch, report, transport)
    except IsoProblem as error:
        if not _built_file(arch):
            raise
        report.warn(f"{error.message} Taking what this checkout has.")
        return None


def _fetch_pinned(pin: Pin, release: Release, arch: str, report: Reporter, transport: Transport) -> Iso:
    by_hand = f"wherry iso import {pin.file}, the one with SHA-256 {pin.sha256[:12]}…"
    urls = release.urls(pin)
    if not urls:
        raise IsoProblem(f"this release's ISO for {arch} is not here, and no address is known that has it.", hint=by_hand)
    from launcher.images.download import Wanted
    from launcher.images.fetch import Order, fetch

    report.step("iso", f"fetching {pin.file} from {urlsplit(urls[0]).hostname}")
    try:
        order = Order(urls, Wanted(pin.sha256, pin.size), arch, "release", __version__, pin.manifest)
        return fetch(order, transport, report)
    except IsoProblem as error:
        hint = f"{error.hint or 'Try again later.'} Without a network: {by_hand}"
        raise IsoProblem(error.message, hint=hint, detail=error.detail) from error


def _cached(sha256: str) -> Iso | None:
    """A damaged one is as good as none: it is replaced."""
    try:
        return cache.by_sha(sha256)
    except IsoProblem:
        return None


def next_without_network(arch: str) -> Iso | None:
    """What a new machine would be made with if nothing could be fetched or built."""
    pin = pins.release().pins.get(arch)
    return _cached(pin.sha256) if pin is not None else _newest_imported(arch)


def _newest_imported(arch: str) -> Iso | None:
    found: list[tuple[float, Iso]] = []
    for iso, source in cache.everything():
        if source.get("origin") in ("file", "url") and (iso.arch, iso.version) == (arch, __version__):
            found.append((float(source.get("imported", 0)), iso))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _built(arch: str, report: Reporter) -> Iso:
    built = _built_file(arch)
    if built is not None:
        return import_file(built, arch, "checkout", report)
    make = f"make iso{'' if arch == 'amd64' else f' ARCH={arch}'}"
    raise IsoProblem(f"there is no ISO for {arch} here.", hint=make if guestfiles.checkout() else "wherry iso import FILE")


def _built_file(arch: str) -> Path | None:
    checkout = guestfiles.checkout()
    file = checkout / "build" / f"wherry-{arch}.iso" if checkout else None
    return file if file is not None and file.is_file() else None
