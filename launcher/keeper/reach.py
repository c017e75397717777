"""How the supervisor's machine is reached over SSH, now and after something broke: what its link asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from launcher.errors import ConnectionLost, NotRunning
from launcher.keeper.link import Link
from launcher.ssh.transport import Connection

if TYPE_CHECKING:
    from launcher.keeper.supervisor import Supervisor

_CONNECT_SECONDS: Final = 30.0
_STOPPED_SECONDS: Final = 3600.0  # a QEMU that somebody stopped is asked again after this
_START_SECONDS: Final = 600.0  # a start says itself when it makes no progress; this is for one that never ends

T = TypeVar("T")


def link_to(keeper: Supervisor) -> Link:
    """The link of this machine; the connection is made later."""
    up = f"wherry up {keeper.directory.name}"

    def reconnect(patience: float) -> Connection:
        if keeper.status in ("suspending", "suspended"):
            raise NotRunning(f"machine {keeper.directory.name!r} is {keeper.status}.", hint=up)
        if not keeper.state.ssh_port:
            raise NotRunning(f"machine {keeper.directory.name!r} has no SSH port yet.", hint=up)
        keys = keeper.directory.client_key, keeper.directory.host_key
        return Connection.connect(keeper.state.ssh_port, *keys, timeout=_CONNECT_SECONDS, first_word=patience)

    def connect() -> Connection:
        connection = reconnect(_CONNECT_SECONDS)
        greet, keeper.parts.greet = keeper.parts.greet, None
        try:
            if greet is not None:
                greet(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def probe() -> None:
        """Returns when QEMU answers: one that was stopped does so when it goes on. Raises WherryError when it is gone."""
        monitor = keeper.monitor()
        if monitor is None:
            raise NotRunning(f"machine {keeper.directory.name!r} is not running.", hint=up)
        monitor.execute("query-status", timeout=_STOPPED_SECONDS)

    def excused() -> bool:
        return bool(keeper.state.paused) or keeper.status in ("stopping", "suspending") or keeper.watch.ended

    return Link(
        connect, reconnect, probe=probe, excused=excused,
        on_state=lambda why, seconds: keeper.healer.on_link(why, seconds),
    )  # fmt: skip


def open_on(keeper: Supervisor, make: Callable[[Connection], T]) -> T:
    """What `make` makes of the connection: once more of the next one, or of that to the QEMU that is started in place of one
    that died. For what has no effect before it has succeeded. Raises WherryError."""
    try:
        return keeper.link.open(make)
    except ConnectionLost:
        if keeper.status != "starting":
            raise
    keeper.wait_ready(_START_SECONDS)
    return keeper.link.open(make)
