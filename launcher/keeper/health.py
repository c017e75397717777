"""How each part of a running machine does, and what was last mended: what `status` shows."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final, Literal

log = logging.getLogger("wherry.keeper.health")

State = Literal["ok", "repairing", "failed"]
# Shown in this order; others behind them.
PARTS: Final = ("engine", "socket", "ports", "shares", "clock")


class Health:
    """Safe to use from many threads."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, str]] = {}
        self._mended: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def report(self, part: str, state: State, detail: str = "") -> None:
        """How a part is now. `detail`: of one that is ok a number or a value ("4", "+3 ms"), of others why in a few words."""
        now = {"state": state, "detail": detail}
        with self._lock:
            before = self._parts.get(part)
            self._parts[part] = now
        if (before or {}).get("state", "ok") != state:
            log.info("%s: %s %s", part, state, detail)

    def state(self, part: str) -> str | None:
        """What was last reported of a part; None when nothing was."""
        with self._lock:
            return self._parts[part]["state"] if part in self._parts else None

    def mended(self, text: str, seconds: float) -> None:
        """Something came back without anyone asking, `seconds` after it was known to be broken."""
        log.info("mended: %s, in %.1f s", text, seconds)
        with self._lock:
            self._mended = {"text": text, "seconds": round(seconds, 2), "at": time.time()}

    def forget(self) -> None:
        """The machine begins anew: nothing is known of its parts. What was mended stays."""
        with self._lock:
            self._parts.clear()

    def to_json(self) -> dict[str, Any]:
        """`parts`: name -> state and detail, in order; `mended`: text, seconds, and at, seconds since the epoch, or None."""
        with self._lock:
            known = [part for part in PARTS if part in self._parts] + sorted(set(self._parts) - set(PARTS))
            return {"parts": {part: dict(self._parts[part]) for part in known}, "mended": self._mended and dict(self._mended)}
