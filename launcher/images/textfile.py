"""A small text of a known SHA-256 from an address; kept, so that it is there without a network the next time."""

from __future__ import annotations

import hashlib
from typing import Final

from launcher import store
from launcher.errors import WherryError
from launcher.images.source import IsoSource
from launcher.images.transport import Transport

MOST: Final = 1 << 20  # bytes


def fetch(source: IsoSource, transport: Transport | None = None) -> bytes:
    """What has that SHA-256. Raises WherryError when the address does not give it."""
    kept = store.cache_dir() / "texts" / source.sha256
    try:
        data = kept.read_bytes()
        if _sha256(data) == source.sha256:
            return data
    except OSError:
        pass  # not there, or not readable: it is fetched
    data = _fetched(source, transport or Transport())
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    store.write_private(kept, data)
    return data


def _fetched(source: IsoSource, transport: Transport) -> bytes:
    from launcher.images.web import Hiccup, Unavailable, Web, host

    data = bytearray()
    try:
        with Web(transport) as web, web.open(source.url) as response:
            for chunk in web.chunks(response, source.url):
                data += chunk
                if len(data) > MOST:
                    raise WherryError(f"{host(source.url)} sends more than {MOST} bytes, which is no such file.")
    except Unavailable as error:
        raise WherryError(error.message, hint=error.hint) from error
    except Hiccup as error:
        raise WherryError(f"{error.message}.", hint="Try again later.") from error
    found = _sha256(bytes(data))
    if found != source.sha256:
        raise WherryError(
            f"{host(source.url)} has another file: its SHA-256 is {found}, wanted is {source.sha256}.",
            hint="Ask who gave you the address for the SHA-256 of the file as it is now.",
        )
    return bytes(data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
