"""Paths as the engine understands them: of requests, and of bind sources."""

from __future__ import annotations

import posixpath
import re
from typing import Final
from urllib.parse import unquote_to_bytes

_ABSOLUTE: Final = re.compile(rb"^[A-Za-z][A-Za-z0-9+.-]*:(?://[^/?]*)?")
_VERSION: Final = re.compile(r"^/v[0-9.]+(?=/)")
_MOUNTS: Final = re.compile(r"^/(?:containers/create|services/create|services/[^/]+/update)$")
_VOLUME: Final = "/volumes/create"
_START: Final = re.compile(r"^/containers/([^/]+)/(start|restart)$")
_DESCRIPTION: Final = re.compile(r"^/containers/(?:[^/]+/)?json$")


def endpoint(target: bytes) -> str:
    """The path of a request's target without query, version, escapes and detours: /v1.41//containers/cre%61te?x is
    /containers/create.

    The engine's router takes escapes and answers most detours by a redirect to the plain path; here they are the same, so that
    none gets past a check.
    """
    if not target.startswith(b"/"):  # http://host/path, which a server must take (RFC 9112, 3.2.2), and x:/path, as Go does
        target = _ABSOLUTE.sub(b"", target)
    path = unquote_to_bytes(target.partition(b"?")[0]).decode("latin-1")
    return _VERSION.sub("", clean(path))


def clean(path: str) -> str:
    """One slash at a time, no `.` and `..`, none at the end."""
    return posixpath.normpath("/" + path.lstrip("/"))


def names_mounts(method: bytes, target: bytes) -> bool:
    """Whether the request makes a container, or a swarm's service, whose settings may name folders to mount."""
    return method.upper() == b"POST" and _MOUNTS.match(endpoint(target)) is not None


def makes_volume(method: bytes, target: bytes) -> bool:
    """Whether the request makes a volume, which may be a folder to mount."""
    return method.upper() == b"POST" and endpoint(target) == _VOLUME


def describes_containers(method: bytes, target: bytes) -> bool:
    """Whether the answer tells of containers and their ports."""
    return method.upper() == b"GET" and _DESCRIPTION.match(endpoint(target)) is not None


def starts_container(method: bytes, target: bytes) -> tuple[str, bool] | None:
    """The container that a request starts, by what the client calls it, and whether anew; None for any other request."""
    match = _START.match(endpoint(target)) if method.upper() == b"POST" else None
    return (match[1], match[2] == "restart") if match else None


def within(path: str, folder: str) -> bool:
    """Whether a clean path is the folder or in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
