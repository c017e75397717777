"""Shared folders of one keeper: which there are, that the guest mounts them, that a process serves them, and how they do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from launcher import privacy, sharing, virtiofs
from launcher.config import MachineConfig
from launcher.errors import WherryError
from launcher.keeper import virtiofsd
from launcher.keeper.events import Events
from launcher.keeper.health import Health
from launcher.keeper.identified import Parts
from launcher.keeper.link import Link
from launcher.keeper.shares import mounts
from launcher.keeper.shares.bound import Bound
from launcher.keeper.shares.child import Child
from launcher.keeper.shares.orders import Orders, Told, Wanted
from launcher.sharing import Share
from launcher.ssh.transport import Connection
from launcher.state import State
from launcher.store import MachineDir

log = logging.getLogger("wherry.keeper.shares")

_WAKES_WITHIN: Final = 15.0
_OBEYS_WITHIN: Final = 30.0
_URGENT_WITHIN: Final = 5.0
_ENDED: Final = Told("failed", "its virtiofsd has ended; wherry restart brings it back")
_MISSED: Final = 2  # looks: at the machine's own end a virtiofsd may be gone a moment before that is known
_STARTING: Final = Told("waiting", "its server starts")


class Keeper(Protocol):
    """As much of the supervisor as shares need."""

    directory: MachineDir
    config: MachineConfig
    link: Link
    health: Health
    parts: Parts

    @property
    def state(self) -> State: ...
    def connection(self) -> Connection: ...
    def note(self, text: str, *, warning: bool = False) -> None: ...


class ShareService:
    """Safe to use from many threads. Make it before the events begin; `begin` starts it, `close` ends the process."""

    def __init__(self, keeper: Keeper, events: Events) -> None:
        self._keeper = keeper
        self._child = Child(keeper.directory.shares_log, self._heard, self._note, time.monotonic)
        self._begun = False  # a keeper that only ends a machine takes nothing from its containers
        self._held = False
        self._adjusting = threading.Lock()  # one at a time: it asks first what there is
        self._changed = threading.Condition()  # for all below
        self._shares: list[Share] = []
        self._private = privacy.Private((), ())
        self._hidden: dict[str, list[str]] = {}  # the private places that were there when they were last looked for
        self._told: dict[str, Told] = {}
        self._refused: dict[str, str] = {}  # by the guest
        self._trouble = ""  # with all of them
        self._over: set[str] = set()  # those over virtiofs
        self._why: dict[str, str] = {}  # the others are not
        self._ended: dict[str, int] = {}  # how often a virtiofsd was missed
        self._connect: dict[str, Any] | None = None  # where the guest is, once that is known
        self._bound = Bound(events, keeper.connection, self._ours, self._tell_bound)
        keeper.link.subscribe(self._up)

    @property
    def uses(self) -> Callable[[], tuple[int, int]]:
        """What idle suspend counts."""
        return self._child.uses

    def begin(self) -> None:
        """Serve what machine.toml names; the guest's part comes with its connection."""
        self._begun = True
        self._apply(self._keeper.config)

    def close(self) -> None:
        """Nothing is served any more."""
        self._child.close()

    @property
    def pid(self) -> int:
        """Of the process that serves; 0 while there is none."""
        return self._child.pid or 0

    def reload(self) -> None:
        """Have what machine.toml names now, of the shares only; it holds when this returns. Raises WherryError when a share
        could not be mounted."""
        shares = self._keeper.directory.read_config().shares
        self._keeper.config = self._keeper.config.changed(shares=shares)
        self._apply(self._keeper.config)
        refused = self._adjust(self._keeper.connection())
        if refused:
            name, why = next(iter(refused.items()))
            path = next((share.path for share in self._now() if share.id == name), name)
            raise WherryError(f"{path} could not be mounted in the machine: {why}", hint="wherry share list")
        if not self._child.obeyed(_OBEYS_WITHIN):
            raise WherryError("the shared folders' process does not answer; it follows when it does.", hint="wherry share list")

    def look_at_pause(self) -> None:
        """Every few seconds. A machine that is held cannot answer; its connection goes on afterwards, with all that is open."""
        held = bool(self._keeper.state.paused)
        if held != self._held and self._now():
            self._held = held
            self._child.order("held", {"held": held})

    def look_at_virtiofs(self) -> None:
        """Every few seconds: whether those who serve over it still run. A machine that is ending has them end first."""
        state = self._keeper.state
        if state.status != "running":
            return
        for name, (pid, stamp) in state.virtiofs.items():
            if virtiofsd.lives(pid, stamp):
                continue
            with self._changed:
                self._ended[name] = self._ended.get(name, 0) + 1
                path = next((share.path for share in self._shares if share.id == name), name)
            if self._ended[name] == _MISSED:
                self._note(f"{path}: its virtiofsd has ended; what uses it in the machine waits until: wherry restart")
                self._report()

    def quiet(self) -> None:
        """Serve nothing until the next connection: the machine is about to be suspended."""
        with self._changed:
            self._connect = None
        self._child.forget("connect")
        self._child.once({"quiet": True})

    def listing(self, *, count: bool = False) -> list[dict[str, Any]]:
        """Each share: id, path, guest, aliases, read_only, inside, state (waiting, served or failed), detail, private
        (the private places of it that are there, as last looked for; `count`: now), hidden (how many those are), virtiofs, why
        it is not where that is wanted."""
        with self._changed:
            if count:
                self._count()
            return [self._shown(share) for share in self._shares]

    def look(self) -> str:
        """After a sleep: all are served again. Raises WherryError when one is not in time."""
        if not [share for share in self._now() if not share.inside]:
            return ""
        self._child.once({"woke": True})
        with self._changed:
            if self._changed.wait_for(lambda: not self._missing(), _WAKES_WITHIN):
                return "shares served"
            missing = ", ".join(self._missing())
        raise WherryError(f"shared folders do not answer: {missing}.", hint="wherry share list")

    def shares(self) -> list[Share]:
        """What machine.toml names."""
        return self._now()

    def _ours(self) -> list[Share]:
        """Those that our own server has."""
        return [share for share in self._now() if share.id not in self._keeper.state.virtiofs]

    def failed(self, name: str) -> str:
        """Why the machine does not have a share, by its id; empty when it does, or is about to."""
        with self._changed:
            share = next((share for share in self._shares if share.id == name), None)
            told = self._state(share) if share is not None else _STARTING
            return told.detail if told.state == "failed" else ""

    def private(self, path: str) -> str:
        """The private place that a real path is, or is in, in the user's words (`~/.aws`); empty when there is none."""
        with self._changed:
            return self._private.place(path)

    def _now(self) -> list[Share]:
        with self._changed:
            return list(self._shares)

    def _apply(self, config: MachineConfig) -> None:
        shares = sharing.shares_of(config)
        hidden = privacy.hidden_places(config)
        over = self._keeper.state.virtiofs
        ours = [share for share in shares if share.id not in over]
        wanted = tuple(Wanted(share.id, share.path, share.read_only, share.inside) for share in ours)
        folder = str(self._keeper.directory.owners_dir)
        orders = Orders(wanted, tuple(hidden), tuple(privacy.protected_places()), config.shares.events, folder)
        why = virtiofs.reasons(config, over) if over or config.shares.virtiofs else {}
        with self._changed:
            had = bool(self._shares)
            self._over, self._why = set(over), why
            self._shares, self._private = shares, privacy.Private(shares, hidden)
            self._count()
        if had or shares:
            self._child.order("shares", orders.to_json())
            self._tell_place()
            self._bound.again()
        self._report()

    def _tell_bound(self, places: Mapping[str, Sequence[str]]) -> None:
        self._child.order("bound", {"bound": places})

    def _tell_place(self) -> None:
        with self._changed:
            place = self._connect if self._shares else None
        if place is not None:
            self._child.order("connect", {"connect": place})

    def _up(self, connection: Connection) -> None:
        """The guest is there, or is there again."""
        if not self._begun:
            return
        self._keeper.parts.urgent_done.wait(_URGENT_WITHIN)  # a connection of its own takes the guest a second of emulation
        directory = self._keeper.directory
        told = {
            "port": self._keeper.state.ssh_port,
            "client_key": str(directory.client_key),
            "host_key": str(directory.host_key),
        }
        with self._changed:
            self._connect = told
            news = self._over != set(self._keeper.state.virtiofs)
        if news:  # decided since
            self._apply(self._keeper.config)
        self._tell_place()
        try:
            self._adjust(connection)
        except WherryError as error:
            if connection.alive:
                self._set_trouble(error.message.rstrip("."))
            raise
        finally:
            self._report()

    def _adjust(self, connection: Connection) -> dict[str, str]:
        with self._adjusting:
            shares = self._now()
            refused = mounts.adjust(connection, shares, self._keeper.state.virtiofs)
            with self._changed:
                self._refused, self._trouble = refused, ""
        self._report()
        return refused

    def _set_trouble(self, why: str) -> None:
        with self._changed:
            self._trouble = why

    def _note(self, text: str) -> None:
        self._keeper.note(text, warning=True)

    def _heard(self, told: dict[str, Told]) -> None:
        with self._changed:
            self._told = told
            self._changed.notify_all()
        self._report()

    def _count(self) -> None:
        """Called with the lock held: hundreds of looks, too many for each command's question how the machine is."""
        self._hidden = {share.id: self._private.there(share) for share in self._shares}

    def _missing(self) -> list[str]:
        """Called with the lock held."""
        return [share.path for share in self._shares if not share.inside and self._state(share).state != "served"]

    def _state(self, share: Share) -> Told:
        """Called with the lock held."""
        told = self._told.get(share.inside or share.id, _STARTING)
        if share.id in self._over:
            told = _ENDED if self._ended.get(share.id, 0) >= _MISSED else Told("served")
        why = self._trouble or self._refused.get(share.id, "")
        return told._replace(state="failed", detail=why) if why else told

    def _shown(self, share: Share) -> dict[str, Any]:
        told = self._state(share)
        return {
            "id": share.id, "path": share.path, "guest": share.guest, "aliases": list(share.aliases),
            "read_only": share.read_only, "inside": share.inside, "state": told.state, "detail": told.detail,
            "hidden": len(private := self._hidden.get(share.id, [])), "private": private,
            "virtiofs": share.id in self._over, "why": self._why.get(share.id, ""),
        }  # fmt: skip

    def _report(self) -> None:
        """What `status` shows; nothing as long as there was no connection, and none to share."""
        with self._changed:
            shares = [share for share in self._shares if not share.inside]
            states = [(share, self._state(share)) for share in shares]
            connected = self._connect is not None
        health = self._keeper.health
        bad = next(((share, told) for share, told in states if told.state != "served"), None)
        if not connected or (not shares and health.state("shares") is None):
            return
        if bad is None:
            health.report("shares", "ok", str(len(self._now())))
        elif bad[1].state == "failed":
            health.report("shares", "failed", f"{Path(bad[0].path).name or bad[0].path}: {bad[1].detail}")
        else:
            health.report("shares", "repairing", bad[1].detail or "not connected")
