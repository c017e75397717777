"""Processes that the guest's kernel killed for want of memory: which container, whose memory was short, what setting helps.

The engine tells too little: containerd waits for a word of the kernel's that a small container often ends before, and of eight
such containers the engine told of five. So the kernel's own log is read whenever a container ends by signal 9, and when the
engine tells (Linux mm/oom_kill.c dump_oom_summary, mm/memcontrol.c mem_cgroup_print_oom_meminfo). Of more than ten in five
seconds the kernel writes no such line; then it is as the engine says.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from launcher.config import MachineConfig, format_size
from launcher.errors import WherryError
from launcher.keeper.events import Event, Events
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.keeper.oom")

_KEPT: Final = 20
_AGAIN: Final = 600.0  # seconds until a container that goes on being killed is told of again
_SECONDS: Final = 30.0
_KNOWN_WITHIN: Final = 12.0  # seconds; somebody waits for it at a terminal
_LATEST: Final = 60.0  # seconds of the kernel's log: a container of the same ID may have been killed before, and by hand now
_BY_SIGNAL_9: Final = "137"  # 128 and the signal
_READ: Final = "cat /proc/uptime; dmesg | grep -E ' memory: usage |oom-kill:'; true"
_USAGE: Final = re.compile(r"\] memory: usage \d+kB, limit (\d+)kB")
_KILL: Final = re.compile(
    r"\[ *(?P<at>\d+\.\d+)\] oom-kill:constraint=\w+"
    r"(?:,nodemask=.*?,oom_memcg=(?P<short>[^,]+))?.*?,task_memcg=(?P<whose>[^,]+),"
)


class Keeper(Protocol):
    """As much of the supervisor as this needs."""

    config: MachineConfig

    def connection(self) -> Connection: ...
    def note(self, text: str, *, warning: bool = False) -> None: ...


@dataclass(frozen=True)
class Kill:
    """One, as the kernel tells it."""

    whose: str  # the control group of the process: the container's ID is in it
    short: str  # the one that had no more memory; empty where the machine had none
    limit: int  # bytes that this one may have

    def allowed(self, container: str) -> int | None:
        """Bytes that the container may have, 0 where the machine had no more, None where something else had."""
        if not self.short:
            return 0
        return self.limit if self.short.endswith(container) else None


@dataclass(frozen=True)
class _Asked:
    name: str
    told: bool  # by the engine: it was killed, whatever the kernel's log has


class Oom:
    """Follows the engine's events; `to_json` tells the latest."""

    def __init__(self, keeper: Keeper, events: Events, clock: Callable[[], float] = time.time) -> None:
        self._keeper = keeper
        self._clock = clock
        self._changed = threading.Condition()
        self._latest: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._asked: dict[str, _Asked] = {}  # by container: many may end at once, and one look answers for all
        self._looking = False
        self._heard = 0.0  # when one ended last
        events.subscribe(self._on_event, lambda _connection, _containers: None)

    def to_json(self, since: float = 0.0, within: float = 0.0) -> list[dict[str, Any]]:
        """`at`, seconds since the epoch, `container`, `text` and `hint`; the latest last.

        Who saw a container end at `since` or later waits up to `within` seconds until that is heard of here, and then until it
        is known why, which a guest without memory takes its time to tell.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._known(since) or self._heard >= since, within)
            if within and self._heard >= since:
                self._changed.wait_for(lambda: self._known(since), _KNOWN_WITHIN)
            return [dict(entry) for entry in self._latest]

    def _known(self, since: float) -> bool:
        answered = self._heard >= since and not self._looking
        return answered or any(entry["at"] >= since for entry in self._latest)

    def _on_event(self, event: Event) -> None:
        actor = event.get("Actor", {})
        attributes = actor.get("Attributes", {})
        action = event.get("Action")
        if event.get("Type") != "container" or not (
            action == "oom" or (action == "die" and attributes.get("exitCode") == _BY_SIGNAL_9)
        ):
            return
        container = str(actor.get("ID", ""))
        with self._changed:
            before = self._asked.get(container)
            told = action == "oom" or (before is not None and before.told)
            self._asked[container] = _Asked(str(attributes.get("name", "")) or container[:12], told)
            self._heard = self._clock()
            if not self._looking:  # never in the thread of the events, which others wait for
                self._looking = True
                threading.Thread(target=self._look, name="oom", daemon=True).start()

    def _look(self) -> None:
        while True:
            with self._changed:
                asked, self._asked = self._asked, {}
                if not asked:
                    self._looking = False
                    self._changed.notify_all()
                    return
            try:
                self._answer(asked)
            except Exception:  # the next one is to be told all the same
                log.exception("after a container was killed")

    def _answer(self, asked: dict[str, _Asked]) -> None:
        found = self._kills()
        for container, one in asked.items():
            kill = next((kill for kill in reversed(found) if container in kill.whose), None)
            if kill is not None or one.told:
                self._tell(container, one.name, kill.allowed(container) if kill is not None else None)

    def _kills(self) -> list[Kill]:
        try:
            code, said, words = self._keeper.connection().run_line(_READ, timeout=_SECONDS)
        except WherryError as error:
            log.info("the kernel's log: %s", error)
            return []
        if code:
            log.warning("the kernel's log: %s", words.decode(errors="replace").strip())
        return kills(said.decode(errors="replace"))

    def _tell(self, container: str, name: str, limit: int | None) -> None:
        found = _explained(name, limit, self._keeper.config.memory)
        now = self._clock()
        told = next((one for one in self._latest if one["id"] == container and now - one["told"] < _AGAIN), None)
        if told is None:
            log.warning("%s", found["text"])
            self._keeper.note(f"{found['text']}: {found['hint']}")
        with self._changed:
            if told is None:
                self._latest.append({"at": now, "told": now, "id": container, "container": name, **found})
            else:
                told.update(at=now, **found)  # it may have been given more since
            self._changed.notify_all()


def kills(said: str) -> list[Kill]:
    """What the guest's answer to `_READ` tells of the last minute, the latest last."""
    uptime, _, lines = said.partition("\n")
    try:
        since = float(uptime.split()[0]) - _LATEST
    except (IndexError, ValueError):
        return []
    found, limit = [], 0
    for line in lines.splitlines():
        if usage := _USAGE.search(line):
            limit = int(usage[1]) << 10
        elif (kill := _KILL.match(line)) and float(kill["at"]) >= since:
            found.append(Kill(kill["whose"], kill["short"] or "", limit if kill["short"] else 0))
    return found


def _explained(name: str, limit: int | None, memory: int) -> dict[str, str]:
    more = f"wherry config set memory {format_size(2 * memory)}"
    if limit is None:
        text = f"a process of {name} was killed for want of memory"
        return {"text": text, "hint": f"docker run --memory …, where it has a limit of its own, else {more}"}
    if 0 < limit < memory:
        text = f"a process of {name} was killed: the container may have {_size(limit)} of memory"
        return {"text": text, "hint": f"docker run --memory {_size(2 * limit).replace(' ', '').lower()} …"}
    return {"text": f"a process of {name} was killed: the machine's {_size(memory)} of memory are used", "hint": more}


def _size(value: int) -> str:
    return f"{value / (1 << 30):.1f}".removesuffix(".0") + " GB" if value >= 1 << 30 else f"{value >> 20} MB"
