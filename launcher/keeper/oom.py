"""Processes that the guest's kernel killed for want of memory: which container, whose memory was short, what setting helps."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from launcher.config import MachineConfig, format_size
from launcher.errors import WherryError
from launcher.keeper import engine
from launcher.keeper.events import Event, Events
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper.oom")

_KEPT: Final = 20
_AGAIN: Final = 600.0  # seconds until a container that goes on being killed is told of again
_SECONDS: Final = 30.0


class Keeper(Protocol):
    """As much of the supervisor as this needs."""

    config: MachineConfig

    def connection(self) -> Connection: ...
    def note(self, text: str, *, warning: bool = False) -> None: ...


class Oom:
    """Follows the engine's events; `to_json` tells the latest."""

    def __init__(self, keeper: Keeper, events: Events, clock: Callable[[], float] = time.time) -> None:
        self._keeper = keeper
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        events.subscribe(self._on_event, lambda _connection, _containers: None)

    def to_json(self) -> list[dict[str, Any]]:
        """`at`, seconds since the epoch, `container`, `text` and `hint`; the latest last."""
        with self._lock:
            return [dict(entry) for entry in self._latest]

    def _on_event(self, event: Event) -> None:
        if event.get("Type") != "container" or event.get("Action") != "oom":
            return
        actor = event.get("Actor", {})
        container, name = str(actor.get("ID", "")), str(actor.get("Attributes", {}).get("name", ""))
        with self._lock:
            now = self._clock()
            told = next((entry for entry in reversed(self._latest) if entry["id"] == container), None)
            if told is not None and now - told["told"] < _AGAIN:
                told["at"] = now
                return
            entry = {"at": now, "told": now, "id": container, "container": name or container[:12], **_unknown(name)}
            self._latest.append(entry)  # before the engine is asked: who waits for the container's end may look now
        found = self._explained(container, name or container[:12])
        with self._lock:
            entry.update(found)
        log.warning("%s", found["text"])
        self._keeper.note(f"{found['text']}: {found['hint']}")

    def _explained(self, container: str, name: str) -> dict[str, str]:
        memory = self._keeper.config.memory
        try:
            limit = int(_described(self._keeper.connection(), container)["HostConfig"]["Memory"])
        except (WherryError, KeyError, TypeError, ValueError) as error:
            log.info("what memory %s has: %s", name, error)  # one with --rm is gone
            return {"text": f"a process of {name} was killed for want of memory", "hint": _either(memory)}
        if 0 < limit < memory:
            text = f"a process of {name} was killed: the container may have {_size(limit)} of memory"
            return {"text": text, "hint": f"docker run --memory {_size(2 * limit).replace(' ', '').lower()} …"}
        return {
            "text": f"a process of {name} was killed: the machine's {_size(memory)} of memory are used",
            "hint": _more(memory),
        }


def _unknown(name: str) -> dict[str, str]:
    return {"text": f"a process of {name} was killed for want of memory", "hint": "wherry status"}


def _described(connection: Connection, container: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.call(connection, "GET", f"/containers/{container}/json", timeout=_SECONDS)
    return found


def _more(memory: int) -> str:
    return f"wherry config set memory {format_size(2 * memory)}"


def _either(memory: int) -> str:
    return f"docker run --memory …, where it has a limit of its own, else {_more(memory)}"


def _size(value: int) -> str:
    return f"{value / (1 << 30):.1f}".removesuffix(".0") + " GB" if value >= 1 << 30 else f"{value >> 20} MB"
