"""Forwards that a user made by hand: any port of the guest, kept in the machine's folder so that they come back."""

from __future__ import annotations

import json
import logging
import re
import threading
from pathlib import Path
from typing import Final

from launcher import files
from launcher.errors import Damaged, Usage, WherryError
from launcher.keeper.ports.bindings import NIC, Binding
from launcher.keeper.ports.holders import Holders
from launcher.keeper.ports.publisher import BY_HAND

log = logging.getLogger("wherry.ports")

# 5433:5432, 127.0.0.1:53:53/udp, [::1]:80:80, 8080:127.0.0.1:80 for what listens on the guest's own loopback only
_FORWARD: Final = re.compile(
    r"(?:(?P<address>\[[0-9a-fA-F:]+\]|[0-9.]+):)?(?P<host>\d+):(?:(?P<inner>127\.0\.0\.1):)?(?P<guest>\d+)(?:/(?P<proto>tcp|udp))?"
)


def parse(text: str) -> Binding:
    """[ADDRESS:]HOST:[127.0.0.1:]GUEST[/udp]. Raises Usage."""
    match = _FORWARD.fullmatch(text)
    ports = [int(match["host"]), int(match["guest"])] if match else []
    if match is None or not all(1 <= port <= 65535 for port in ports):
        raise Usage(f"{text!r} is no forward.", hint="wherry port add 5433:5432, or 5353:53/udp")
    address, inner = (match["address"] or "").strip("[]"), match["inner"] or NIC
    return Binding(match["proto"] or "tcp", address, ports[0], inner, ports[1], inside=ports[1])


class ByHand:
    """Safe to use from many threads."""

    def __init__(self, path: Path, holders: Holders) -> None:
        self._path = path
        self._holders = holders
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Have those that were made before; one that is taken now is tried again."""
        with self._lock:
            try:
                kept = files.read_texts(self._path)
            except Damaged as error:
                log.warning("%s", error.message)
                return
            for text in kept:
                try:
                    binding = parse(text)
                except WherryError as error:
                    log.warning("%s: %s", self._path.name, error.message)
                    continue
                self._holders.hold(_identity(binding), "", [binding])

    def change(self, action: str, text: str) -> None:
        """`add` or `remove`. Raises Taken, Usage, Damaged."""
        binding = parse(text)
        identity = _identity(binding)
        with self._lock:
            kept = files.read_texts(self._path)
            if action == "add":
                self._holders.begin(identity, "", [binding])  # also where it is in the list: somebody else may have the port
                self._holders.settle(identity, started=True)
                if text not in kept:
                    self._write([*kept, text])
            elif action == "remove":
                found = [one for one in kept if _identity(parse(one)) == identity]
                if not found:
                    raise Usage(f"{text} was not added by hand.", hint="wherry port list")
                self._holders.free(identity)
                self._write([one for one in kept if one not in found])
            else:
                raise Usage(f"port knows no {action!r}.")

    def _write(self, texts: list[str]) -> None:
        files.write_private(self._path, json.dumps(texts).encode())


def _identity(binding: Binding) -> str:
    return f"{BY_HAND}{binding.proto}:{binding.address}:{binding.port}"
