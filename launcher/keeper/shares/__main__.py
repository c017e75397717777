"""`python -m launcher.keeper.shares LOG`: serves the shares of one machine, as its keeper says on stdin (orders.py).

A process of its own, with a connection of its own: what moves a lot of data must not delay the engine's socket, and Python
does one thing at a time. It ends when stdin does, and so with its keeper.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any, Final

from launcher import host
from launcher.errors import WherryError
from launcher.keeper import diary
from launcher.keeper.link import Link
from launcher.keeper.shares import mounts
from launcher.keeper.shares.assembly import Assembly
from launcher.keeper.shares.orders import LONGEST, Orders, Told, line
from launcher.keeper.shares.stations import Stations
from launcher.keeper.shares.stream import ChannelStream
from launcher.keeper.shares.way import Way
from launcher.ssh.transport import Connection

log = logging.getLogger("wherry.shares")

_CONNECT_SECONDS: Final = 30.0
_TICK: Final = 1.0
_TELLS_USE: Final = 10  # ticks
_ENDS_WITHIN: Final = 3.0


class Place:
    """Where the guest is; changes with its port."""

    def __init__(self) -> None:
        self._told: dict[str, Any] | None = None

    def tell(self, told: dict[str, Any]) -> bool:
        """Whether that is news."""
        news, self._told = told != self._told, told
        return news

    def connect(self, patience: float) -> Connection:
        told = self._told
        assert told is not None
        keys = Path(told["client_key"]), Path(told["host_key"])
        return Connection.connect(told["port"], *keys, timeout=_CONNECT_SECONDS, first_word=patience)


class Process:
    """What the keeper's orders do. Reports go to `output`, a descriptor."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._telling = threading.Lock()
        self._place = Place()
        self._way = Way()
        self._held = False
        self._link = Link(lambda: self._place.connect(_CONNECT_SECONDS), self._place.connect, excused=lambda: self._held)
        self._link.subscribe(self._way.up)
        self._link.subscribe(_give_way)
        self._assembly = Assembly(lambda note: self._tell({"note": note}))
        self._stations = Stations(self._way, self._assembly.assemble, self._report)
        self._over = threading.Event()
        threading.Thread(target=self._look, name="pulse", daemon=True).start()

    def obey(self, message: dict[str, Any]) -> None:
        """One message. Raises what is wrong with it."""
        if "shares" in message:
            self._stations.apply(Orders.from_json(message))
        if "connect" in message:
            self._connect(message["connect"])
        if "quiet" in message:
            self._way.down()
            self._link.drop()
        if "bound" in message:
            self._assembly.bound({name: [os.fsencode(path) for path in paths] for name, paths in message["bound"].items()})
        if "held" in message:
            self._held = message["held"]
        if "woke" in message:
            self._link.woke()
        if "number" in message:
            self._tell({"obeyed": message["number"]})

    def close(self) -> None:
        self._over.set()
        self._stations.close()
        self._assembly.close()
        self._link.drop()

    def _connect(self, told: dict[str, Any]) -> None:
        if self._place.tell(told):
            self._way.down()
            self._link.drop()
        self._link.want("the keeper has told where the machine is")

    def _look(self) -> None:
        """Whether an answer is late, and now and then whether anything was asked."""
        heard, ticks = 0, 0
        while not self._over.wait(_TICK):
            self._link.look()
            ticks += 1
            if ticks % _TELLS_USE == 0 and heard != ChannelStream.heard:
                heard = ChannelStream.heard
                self._tell({"used": True})

    def _report(self, told: dict[str, Told]) -> None:
        self._tell({"shares": {name: one._asdict() for name, one in told.items()}})

    def _tell(self, message: dict[str, Any]) -> None:
        left = line(message)
        with self._telling, contextlib.suppress(OSError):  # the keeper is gone, and so will we be
            while left:
                left = left[os.write(self._output, left) :]


def _give_way(connection: Connection) -> None:
    """It moves a lot of data, and the engine has to answer meanwhile."""
    try:
        mounts.give_way(connection)
    except WherryError as error:
        log.info("the connection of the shares gives no way: %s", error.message)


def main() -> int:
    os.umask(0o077)
    host.current().raise_descriptor_limit()  # one for each file that is open in the guest
    diary.keep(Path(sys.argv[1]))
    os.umask(0)  # modes are the guest's, whose own mask was applied there
    process = Process(os.dup(1))
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_obey, args=(process, orders), name="orders", daemon=True).start()
    while told := sys.stdin.buffer.readline(LONGEST):
        orders.put(told)
    # A file system that does not answer must not keep us from ending: another process is to serve.
    late = threading.Timer(_ENDS_WITHIN, os._exit, (1,))
    late.daemon = True
    late.start()
    process.close()
    return 0


def _obey(process: Process, orders: queue.SimpleQueue[bytes]) -> None:
    while True:
        told = orders.get()
        try:
            process.obey(json.loads(told))
        except Exception:  # the next order may be a better one
            log.exception("an order of the keeper's")


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Threads may be blocked in a file system that does not answer; they are daemons, and end with us.
    os._exit(code)
