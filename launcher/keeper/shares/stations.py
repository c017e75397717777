"""All shares in the process that serves them, kept as the keeper wants them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from launcher.keeper.shares.orders import Orders, Told
from launcher.keeper.shares.station import Assemble, Station
from launcher.keeper.shares.way import Way

_ENDS_WITHIN: Final = 2.0


class Stations:
    """`report` hears of each change how all of them do, one call at a time."""

    def __init__(self, way: Way, assemble: Assemble, report: Callable[[dict[str, Told]], None]) -> None:
        self._way = way
        self._assemble = assemble
        self._report = report
        self._lock = threading.Lock()
        self._stations: dict[str, Station] = {}
        self._reporting = threading.Lock()

    def apply(self, orders: Orders) -> None:
        """Serve these, each as it is said. One whose rules alone have changed goes on."""
        wanted = {share.id: share for share in orders.shares if not share.inside}
        with self._lock:
            gone = [
                self._stations.pop(name)
                for name, station in list(self._stations.items())
                if name not in wanted or wanted[name].path != station.share.path
            ]
            _close(gone)
            for name, share in wanted.items():
                station = self._stations.get(name)
                if station is None:
                    self._stations[name] = Station(share, orders, self._way, self._assemble, self._tell)
                    continue
                station.change(share, orders)
        self._tell()

    def close(self) -> None:
        """Nothing is served any more, and what is remembered is on the disk."""
        with self._lock:
            _close(list(self._stations.values()))

    def _tell(self) -> None:
        with self._reporting:
            self._report({name: station.told for name, station in list(self._stations.items())})


def _close(stations: list[Station]) -> None:
    until = time.monotonic() + _ENDS_WITHIN
    for station in stations:
        station.close(max(0.0, until - time.monotonic()))
