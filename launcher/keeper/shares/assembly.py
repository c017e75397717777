"""One share put together of the parts of launcher/sftp: what is there, what may be done with it, what is remembered."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launcher import host
from launcher.keeper.shares.orders import Orders, Wanted
from launcher.keeper.shares.stream import ChannelStream
from launcher.keeper.shares.watch import Watcher
from launcher.keeper.shares.watch_share import Share
from launcher.sftp.anytree import any_tree
from launcher.sftp.events import EVERYTHING, Event
from launcher.sftp.owners import Owners
from launcher.sftp.policy import Policy
from launcher.sftp.session import Session

log = logging.getLogger("wherry.shares")


class Assembly:
    """Makes shares, and has one watcher for all of them. Safe to use from many threads."""

    def __init__(self, on_note: Callable[[str], None]) -> None:
        """`on_note` hears what the user should know."""
        self.on_note = on_note
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._remembers: int | None = None  # a lock, which goes with this process
        self._watcher: Watcher | None = None
        try:
            self._watcher = Watcher(self._on_events)
        except OSError as error:  # files are served all the same
            log.warning("changes on this computer are not told: %s", error)

    def assemble(self, share: Wanted, orders: Orders) -> Assembled:
        """Raises OSError when the folder is not there, or cannot be opened."""
        self._have(Path(orders.folder))
        return Assembled(share, orders, self)

    def _have(self, folder: Path) -> None:
        """What is remembered of owners is one process's at a time. Raises OSError while one before us ends."""
        with self._lock:
            if self._remembers is None:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._remembers = host.current().lock(folder / "lock", wait=False)
            if self._remembers is None:
                raise BlockingIOError(errno.EAGAIN, "the server before this one is still ending")

    def bound(self, paths: Mapping[str, Sequence[bytes]]) -> None:
        """The folders of each share that containers have, by their paths in the share."""
        if self._watcher is not None:
            self._watcher.bound(paths)

    def watch(self, share: Wanted, hides: Callable[[bytes], bool]) -> Share | None:
        """The share's changes go to the session that is on from now on; nothing of what is hidden."""
        return self._watcher.share(share.id, Path(share.path), hides) if self._watcher is not None else None

    def forget(self, share: Wanted, watched: Share | None) -> None:
        """No more of what `watch` gave."""
        if self._watcher is not None and watched is not None:
            self._watcher.forget(share.id, watched)

    def all_is_new(self, share: Wanted) -> None:
        """What the guest was shown of it may not be so any more."""
        self._on_events(share.id, [EVERYTHING])

    def begin(self, share: Wanted, session: Session) -> None:
        with self._lock:
            self._sessions[share.id] = session

    def end(self, share: Wanted) -> None:
        with self._lock:
            self._sessions.pop(share.id, None)

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()

    def _on_events(self, identity: str, events: list[Event]) -> None:
        with self._lock:
            session = self._sessions.get(identity)
        if session is not None:
            session.push(events)


class Assembled:
    """`launcher.keeper.shares.station.Served`."""

    def __init__(self, share: Wanted, orders: Orders, assembly: Assembly) -> None:
        self._assembly = assembly
        self._share = share
        self._events = orders.events
        root = Path(share.path)
        device = os.stat(root).st_dev
        # Another one, since that of the tree is used by its threads.
        self._shown = _policy(share, orders)
        self._owners = Owners(Path(orders.folder) / f"{share.id}.sqlite3", device)
        try:
            self._tree = any_tree(root, _policy(share, orders), self._owners)
        except BaseException:
            self._owners.close()
            raise
        self._tell_notes()

    def serve(self, stream: ChannelStream, /) -> None:
        # One watch for each session: the guest has forgotten what it was shown before.
        watched = self._assembly.watch(self._share, self._hides) if self._events else None
        session = Session(stream, self._tree, watched=watched)
        self._assembly.begin(self._share, session)
        try:
            session.serve()
        finally:
            self._assembly.end(self._share)
            self._assembly.forget(self._share, watched)
            self._tell_notes()

    def change(self, share: Wanted, orders: Orders, /) -> None:
        self._shown = _policy(share, orders)
        self._events = orders.events
        self._tree.replace(_policy(share, orders))
        # A place that was hidden may be believed not to be there, until somebody says otherwise.
        self._assembly.all_is_new(share)

    def _tell_notes(self) -> None:
        for note in self._owners.notes():
            log.warning("%s: %s", self._share.id, note)
            self._assembly.on_note(f"{self._share.path}: {note}")

    def _hides(self, path: bytes) -> bool:
        return self._shown.hides(self._share.path.rstrip("/") + os.fsdecode(path))

    def close(self) -> None:
        self._tree.close()
        self._owners.close()


def _policy(share: Wanted, orders: Orders) -> Policy:
    """A share that lies in this one was given on purpose, also where it lies in a hidden place."""
    return Policy(
        Path(share.path), read_only=share.read_only, hidden=orders.hidden, protected=orders.protected,
        given=[(other.path, other.read_only) for other in orders.inside(share)],
    )  # fmt: skip
