"""What a running machine gives back when it has come to rest: memory once after each time that it worked, space on this
computer's disk once after something was removed, else daily if something was written.

The guest has no timer for this and is not woken to be asked: that it rests shows in the processor time of QEMU, that something
was removed in the engine's events, that something was written in QEMU's own count.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import psutil

from launcher.errors import WherryError
from launcher.keeper.events import Event, Events
from launcher.qemu import blocks
from launcher.qemu.qmp import Qmp
from launcher.ssh.transport import Connection
from launcher.state import State

log = logging.getLogger("wherry.keeper.upkeep")

EASE: Final = "/usr/lib/wherry/ease"
# What leaves unused blocks behind; `events.FILTERS` lets them through.
REMOVALS: Final = frozenset({"delete", "destroy", "prune", "remove"})
_SAMPLES_EVERY: Final = 9.0  # seconds
_WORKS: Final = 0.20  # of a processor: an idle guest takes 0.01 to 0.03 under emulation
_RESTS: Final = 120.0  # seconds of quiet before memory is given back
_CALM: Final = 20.0  # after a removal, and of quiet, before a trim
_PATIENCE: Final = 600.0  # after which a trim does not wait for quiet
_DAY: Final = 86400.0
_WORTH: Final = 64 << 20  # bytes written in a day
_SECONDS: Final = 120.0
_MISSING: Final = 127


class Keeper(Protocol):
    """As much of the supervisor as this needs."""

    @property
    def state(self) -> State: ...
    def monitor(self) -> Qmp | None: ...
    def connection(self) -> Connection: ...


class Storing(Protocol):
    """As much of Storage as this needs."""

    def do(self, request: Mapping[str, Any], tell: Callable[[int, int], None], /) -> dict[str, Any]: ...


def processor_seconds(pid: int) -> float:
    """What a process has used; 0 when there is none."""
    try:
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    except (psutil.Error, ValueError):
        return 0.0


class Upkeep:
    """`look` is called every few seconds and does not wait; what is due is done in a thread. `clock` counts seconds."""

    def __init__(
        self, keeper: Keeper, events: Events, storage: Storing, clock: Callable[[], float] = time.monotonic,
        used: Callable[[int], float] = processor_seconds,
    ) -> None:  # fmt: skip
        self._keeper = keeper
        self._used = used
        self._storage = storage
        self._clock = clock
        self._lock = threading.Lock()  # for all below
        self._sample: tuple[int, float, float] | None = None  # QEMU's pid, when, its processor seconds
        self._busy = clock()  # when it last worked
        self._worked = True  # since memory was last given back; a start is work
        self._removed: float | None = None  # when something was, since the last trim
        self._trimmed = clock()
        self._written = 0  # bytes, at the last trim
        self._working = False
        events.subscribe(self._on_event, lambda _connection, _containers: None)

    def look(self) -> None:
        state = self._keeper.state
        with self._lock:
            if state.status != "running" or state.paused or self._working:
                return
            self._measure(state.qemu_pid)
            job = self._due(self._clock())
            self._working = job is not None
        if job is not None:
            threading.Thread(target=self._do, args=(job,), name="upkeep", daemon=True).start()

    def _on_event(self, event: Event) -> None:
        if event.get("Action") in REMOVALS:
            with self._lock:
                self._removed = self._clock()

    def _measure(self, pid: int) -> None:
        now = self._clock()
        before = self._sample if self._sample is not None and self._sample[0] == pid else None
        if before is not None and now - before[1] < _SAMPLES_EVERY:
            return
        used = self._used(pid)
        # The first look, or another QEMU: it may have worked until now.
        if before is None or (used - before[2]) / (now - before[1]) > _WORKS:
            self._busy, self._worked = now, True
        self._sample = pid, now, used

    def _due(self, now: float) -> Callable[[], None] | None:
        quiet = now - self._busy
        if self._removed is not None and now - self._removed >= _CALM and (quiet >= _CALM or now - self._removed > _PATIENCE):
            return self._trim
        if now - self._trimmed >= _DAY and quiet >= _RESTS:
            return self._trim_daily
        return self._ease if self._worked and quiet >= _RESTS else None

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except WherryError as error:  # the next time will come
            log.info("%s", error.message)
        except Exception:
            log.exception("upkeep")
        finally:
            with self._lock:
                if self._sample is not None:  # what this took is not the machine's work
                    self._sample = self._sample[0], self._clock(), self._used(self._sample[0])
                self._working = False

    def _trim_daily(self) -> None:
        """Only if it is worth to wake the guest."""
        monitor = self._keeper.monitor()
        written = blocks.written(monitor) if monitor is not None else 0
        with self._lock:
            worth = abs(written - self._written) >= _WORTH  # less after a start of QEMU
            self._trimmed = self._clock()
        if worth:
            self._trim()

    def _trim(self) -> None:
        with self._lock:
            self._removed, self._trimmed = None, self._clock()
        done: dict[str, Any] = self._storage.do({"action": "reclaim"}, lambda _done, _total: None)
        log.info("trimmed: %d bytes given back", max(0, done["before"] - done["after"]))
        monitor = self._keeper.monitor()
        written = blocks.written(monitor) if monitor is not None else 0
        with self._lock:
            self._written = written

    def _ease(self) -> None:
        with self._lock:
            self._worked = False
        code, out, words = self._keeper.connection().run([EASE], timeout=_SECONDS)
        if code == _MISSING:  # an older image
            return
        if code != 0:
            raise WherryError(f"memory was not given back: {words.decode(errors='replace').strip()}")
        before, after = map(int, out.split())
        log.info("memory: %d MB are free in the guest, %d before", after >> 10, before >> 10)
