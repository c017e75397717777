"""All about ports of one keeper, put together: the engine's events, the loop, who holds what."""

from __future__ import annotations

import logging
from typing import Any, Final, Protocol

from launcher.config import LOCALHOST
from launcher.errors import WherryError
from launcher.keeper.events import Event, Events
from launcher.keeper.health import Health
from launcher.keeper.identified import Parts
from launcher.keeper.link import Link
from launcher.keeper.ports.aliases import Aliases
from launcher.keeper.ports.byhand import ByHand
from launcher.keeper.ports.forwarder import Forwarder
from launcher.keeper.ports.holders import Holders
from launcher.keeper.ports.publisher import Publisher
from launcher.qemu.qmp import Qmp
from launcher.ssh.transport import Connection
from launcher.state import State
from launcher.store import MachineDir

log = logging.getLogger("wherry.ports")

_START_SECONDS: Final = 600.0  # a start says itself when it makes no progress; this is for one that never ends


class Keeper(Protocol):
    """As much of the supervisor as ports need."""

    directory: MachineDir
    link: Link
    health: Health
    state: State
    parts: Parts

    def connection(self) -> Connection: ...
    def monitor(self) -> Qmp | None: ...
    def wait_ready(self, seconds: float | None = None) -> None: ...


class PortService:
    """Begins with the first connection to the guest; `close` frees everything."""

    def __init__(self, keeper: Keeper, events: Events) -> None:
        self._keeper = keeper
        self._swept = False
        self._forwarder = Forwarder(keeper.monitor, lambda: bool(keeper.state.paused), self._wake)
        self.uses = self._forwarder.uses
        published = _published(keeper.directory)
        self.holders = Holders(self._forwarder, published, self._report)
        self.by_hand = ByHand(keeper.directory.forwards_file, self.holders)
        self.publisher = Publisher(keeper.connection, self.holders, Aliases(keeper.directory.addresses_file, published))
        # Before the engine's events begin: what a keeper before us left is not to be taken for ours.
        events.subscribe(self._on_event, self._on_resync)

    def _wake(self) -> None:
        self._keeper.wait_ready(_START_SECONDS)

    def close(self) -> None:
        self.holders.close()
        self._forwarder.stop()

    def _on_event(self, event: Event) -> None:
        self.publisher.on_event(event)
        self._report()

    def _on_resync(self, connection: Connection, containers: list[dict[str, Any]]) -> None:
        self._sweep()
        self.by_hand.begin()
        self.publisher.on_resync(connection, containers)
        self._report()
        self._keeper.parts.urgent_done.set()

    def _report(self) -> None:
        entries = self.holders.listing()
        bad = next((entry for entry in entries if entry["state"] != "ok"), None)
        if bad is None:
            self._keeper.health.report("ports", "ok", str(len({(entry["protocol"], entry["port"]) for entry in entries})))
        else:
            self._keeper.health.report("ports", "failed", f"{bad['port']}/{bad['protocol']} {bad['state']}")

    def _sweep(self) -> None:
        """Once: take away the rules that a killed keeper left in QEMU."""
        if self._swept or self._keeper.monitor() is None:
            return
        self._swept = True
        try:
            self._forwarder.rules.sweep(self._keeper.state.ssh_port)
        except WherryError as error:
            log.warning("rules left in QEMU: %s", error.message)


def _published(directory: MachineDir) -> tuple[str, ...]:
    try:
        return directory.read_config().published
    except WherryError:  # whoever starts the machine hears of it; a keeper that is to stop it needs none
        return LOCALHOST
