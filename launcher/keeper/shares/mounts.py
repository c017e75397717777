"""The shares that the guest has mounted, made to be those that are wanted (provisioning/README.md, `shares`)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Final

from launcher import seed
from launcher.errors import WherryError
from launcher.sharing import Share
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.shares")

_HELPER: Final = "/usr/lib/wherry/shares"
_NOT_FOUND: Final = 127
_SECONDS: Final = 90.0


def adjust(connection: Connection, shares: Sequence[Share], virtiofs: Collection[str] = ()) -> dict[str, str]:
    """Mount what is missing, take away what is too much. Why some could not be mounted, by id. `virtiofs`: the ids of those
    that come over it.

    Raises WherryError when the guest knows nothing of shares, or does not answer.
    """
    wanted = {line.split("\t")[0]: line for line in _lines(seed.render_shares(shares, virtiofs))}
    have = {line.split("\t")[0]: line for line in _lines(_call(connection, "list"))}
    for share in have.keys() - wanted.keys():
        log.info("%s is no share any more", share)
        _call(connection, "remove", share)
    failed: dict[str, str] = {}
    for share, line in wanted.items():
        if have.get(share) == line:
            continue
        log.info("%s becomes a share of the machine", share)
        try:
            _call(connection, "add", *line.split("\t"))
        except _Refused as error:
            failed[share] = error.message
    return failed


def give_way(connection: Connection) -> None:
    """Have sshd's end of the connection, which carries shares, work behind others in the guest. Raises WherryError, also where
    the guest is of an image that does not know that."""
    _call(connection, "yields")


class _Refused(WherryError):
    """What the guest's own `shares` said."""


def _lines(text: bytes) -> list[str]:
    return text.decode("utf-8", "surrogateescape").splitlines()


def _call(connection: Connection, *words: str) -> bytes:
    code, output, errors = connection.run([_HELPER, *words], timeout=_SECONDS)
    if code == _NOT_FOUND:
        raise WherryError("the machine's image is too old for shared folders.", hint="wherry upgrade")
    if code != 0:
        raise _Refused(errors.decode(errors="replace").strip() or f"shares {words[0]} ended with exit code {code}")
    return output
