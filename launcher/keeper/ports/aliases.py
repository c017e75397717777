"""Where the engine in the guest has what was published on an address that the guest does not have.

Such a binding is told to the engine as 127.A.H.L:65001: A says which address of this computer, H and L are the two bytes of the
port. All of 127.0.0.0/8 is the guest's own, and one port for all of them keeps clear of what is published on every address, and
of what the guest itself listens on. What each A means is kept in the machine's folder.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from launcher import files
from launcher.errors import Damaged, WherryError

log = logging.getLogger("wherry.ports")

PORT: Final = 65001
# The guest listens there itself: sshd, its resolver, and all of the above.
_OF_THE_GUEST: Final = (22, 53, PORT)
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104
_LOCAL: Final = "127.0.0.1"
_FIRST, _LAST = 128, 254
SHAPE: Final = re.compile(r"127\.(1(?:2[89]|[3-9]\d)|2[0-4]\d|25[0-4])\.(\d{1,3})\.(\d{1,3})")


class Aliases:
    """Safe to use from many threads. `published`: the addresses for ports whose user named none."""

    def __init__(self, path: Path, published: Iterable[str]) -> None:
        self._path = path
        self._published = tuple(published)
        self._lock = threading.Lock()
        self._known: list[str] | None = None  # by A - 128; addresses as the user wrote them, "" for none

    def encode(self, address: str, port: int) -> tuple[str, int]:
        """Address and port to tell the engine. Raises WherryError when there were too many addresses, or the file is damaged:
        made anew it would give the addresses of containers that are there another meaning."""
        if not self._needed(address, port):
            return address, port
        with self._lock:
            known = self._read()
            if address not in known:
                if len(known) > _LAST - _FIRST:
                    raise WherryError(
                        f"no more addresses can be published on, there were {len(known)}: {address} is another.",
                        hint="Publish on 0.0.0.0, or make another machine.",
                    )
                known.append(address)
                files.write_private(self._path, json.dumps(known).encode())
            return f"127.{_FIRST + known.index(address)}.{port >> 8}.{port & 255}", PORT

    def decode(self, address: str, port: int) -> tuple[str, int]:
        """What was encoded; anything else as it is."""
        match = SHAPE.fullmatch(address) if port == PORT else None
        if match is None:
            return address, port
        with self._lock:
            try:
                known = self._read()
            except Damaged as error:
                log.warning("%s", error.message)
                return address, port
        number = int(match[1]) - _FIRST
        return (known[number], int(match[2]) << 8 | int(match[3])) if number < len(known) else (address, port)

    def _needed(self, address: str, port: int) -> bool:
        if port in _OF_THE_GUEST:
            return True
        if address == _LOCAL:
            # It stands beside what is published on every address of the guest, unless that has this one too.
            return not {_LOCAL, EVERYWHERE} & set(self._published)
        return address not in ("", EVERYWHERE) and is_address(address)

    def _read(self) -> list[str]:
        if self._known is None:
            self._known = files.read_texts(self._path)
        return self._known


def is_address(text: str) -> bool:
    """What is none is the engine's to refuse."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
