"""What a running machine costs this computer: memory of its processes, and their processor time over the last minute."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import psutil

_MINUTE: Final = 60.0
_EVERY: Final = 9.0  # seconds between two looks, which cost 0.1 ms for each process
_SHORTEST: Final = 5.0  # seconds over which a share of a processor is told


class Cost:
    """Safe to use from many threads. `pids`: the processes by name; 0 for one that is not there."""

    def __init__(self, pids: Callable[[], Mapping[str, int]], clock: Callable[[], float] = time.monotonic) -> None:
        self._pids = pids
        self._clock = clock
        self._looks: deque[tuple[float, dict[tuple[int, float], float]]] = deque()
        self._lock = threading.Lock()

    def look(self) -> None:
        """Called every few seconds: note what was used until now."""
        with self._lock:
            now = self._clock()
            if not self._looks or now - self._looks[-1][0] >= _EVERY:
                self._looks.append((now, self._used(self._processes())))
            while len(self._looks) > 1 and now - self._looks[1][0] >= _MINUTE:
                self._looks.popleft()

    def to_json(self) -> dict[str, Any]:
        """`memory`: resident bytes, in all and by process (a shared page counts in each); `cpu`: per cent of one processor over
        the last `seconds`, None right after the start."""
        with self._lock:
            processes = self._processes()
            memory = {name: _memory(process) for name, process in processes.items()}
            cpu, seconds = self._share(self._used(processes))
        return {"memory": sum(memory.values()), "processes": memory, "cpu": cpu, "seconds": seconds}

    def _share(self, used: dict[tuple[int, float], float]) -> tuple[float | None, int]:
        if not self._looks:
            return None, 0
        then, before = self._looks[0]
        seconds = self._clock() - then
        if seconds < _SHORTEST:
            return None, 0
        # One that began since then counts from its own beginning; what one used that is gone is not known.
        spent = sum(time_now - before.get(key, 0.0) for key, time_now in used.items())
        return round(100 * spent / seconds, 2), round(seconds)

    def _processes(self) -> dict[str, psutil.Process]:
        found = {}
        for name, pid in self._pids().items():
            try:
                if pid:
                    found[name] = psutil.Process(pid)
            except psutil.Error:
                continue
        return found

    @staticmethod
    def _used(processes: Mapping[str, psutil.Process]) -> dict[tuple[int, float], float]:
        """Processor seconds of each, by pid and birth: a pid is given out again."""
        used = {}
        for process in processes.values():
            try:
                times = process.cpu_times()
                used[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue
        return used


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
