"""Changes on this computer in folders that containers have bound, for the guest.

Only folders that the guest has looked at are watched, one by one, so that the cost grows with what is used and not with what is
there. A folder counts as watched only while each one above it in the share is heeded too: a rename there makes the same path
lead elsewhere. Whatever was watched and is not any more is an event (LOST): the guest keeps what it was shown until it hears
of it.

What is not told of: writes through a mapping (mmap) until the file is closed; changes by a second name of a file (nlink above
1) in a folder that is not watched; reads (atime); a file system that is mounted over a watched folder.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from launcher.keeper.shares.watch_places import Places
from launcher.keeper.shares.watch_reader import Reader
from launcher.keeper.shares.watch_share import Bound, Share
from launcher.keeper.shares.watch_source import Source, new_source
from launcher.sftp.events import Event

log = logging.getLogger("wherry.shares.watch")

WINDOW: Final = 0.05  # seconds from the first change to the events
_AGAIN: Final = 0.02  # seconds, for what was too young
_STORM: Final = 0.2  # seconds to the next events when there were too many to tell each
_READS: Final = 64  # in a row


class Watcher:
    """One for all shares of a process. Safe to use from many threads."""

    def __init__(self, on_events: Callable[[str, list[Event]], None], *, source: Source | None = None) -> None:
        """`on_events` is called with a share's id in a thread of ours, and must not wait for long. Raises OSError when the
        system has no watches for us."""
        self._on_events = on_events
        self._source = source or new_source()
        self._binding = threading.Lock()  # taken before the other
        self._lock = threading.Lock()
        self._places = Places(self._source, self._lock)
        self._reader = Reader(self._places)
        self._shares: dict[str, Share] = {}
        self._bound: Mapping[str, Sequence[bytes]] = {}
        self._due: float | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="share-watch", daemon=True)
        self._thread.start()

    def share(self, identity: str, root: Path, hidden: Callable[[bytes], bool] = lambda _path: False) -> Share:
        """Begin with a share, whose `folder` and `made` its server is to call; in place of the one of that id. Nothing is told
        of names that are `hidden`."""
        share = Share(identity, root, self._places, hidden)
        with self._binding:
            bound = share.resolve(self._bound.get(identity, ()))
            with self._lock:
                self._end(identity)
                self._shares[identity] = share
                self._places.bind(share, bound)
                self._set_trees()
        return share

    def forget(self, identity: str, share: Share | None = None) -> None:
        """A share is over; `share`: only if that is the one, and not one that has taken its place."""
        with self._binding, self._lock:
            if share is None or self._shares.get(identity) is share:
                self._end(identity)
                self._set_trees()

    def bound(self, paths: Mapping[str, Sequence[bytes]]) -> None:
        """By share, the folders and files that running containers have: only these folders, and what is in them, are watched
        from now on; of a file the folder that it is in."""
        with self._binding:
            self._bound = {identity: tuple(folders) for identity, folders in paths.items()}
            found = [(share, share.resolve(self._bound.get(share.identity, ()))) for share in self._shares.values()]
            with self._lock:
                for share, bound in found:
                    self._places.bind(share, bound)
                self._set_trees()
        self._source.wake()

    def close(self) -> None:
        """Nothing is told from now on, and nothing is watched."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        self._source.wake()
        self._thread.join()
        with self._lock:
            for identity in list(self._shares):
                self._end(identity)
            self._source.close()

    @property
    def watches(self) -> int:
        return len(self._places)

    def _set_trees(self) -> None:
        self._source.trees([share.host(path) for share in self._shares.values() for path in sorted(share.bound.folders)])

    def _end(self, identity: str) -> None:
        share = self._shares.pop(identity, None)
        if share is not None:
            self._places.bind(share, Bound())
            share.ended = True

    def _run(self) -> None:
        while not self._closed:
            try:
                self._source.wait(self._patience())
                self._hear()
                if self._due is not None and time.monotonic() >= self._due:
                    self._tell()
            except Exception:  # what was heard is unknown then
                log.exception("the changes of this computer")
                with self._lock:
                    self._places.lose()

    def _patience(self) -> float | None:
        with self._lock:
            if self._due is None and any(len(share.window) for share in self._shares.values()):
                self._due = time.monotonic() + WINDOW
        return None if self._due is None else self._due - time.monotonic()

    def _hear(self) -> bool:
        """Whether that was all there is."""
        for _ in range(_READS):
            with self._lock:
                heard = self._source.read()
                self._reader.take(heard, time.monotonic())
            if not heard:
                return True
        return False

    def _tell(self) -> None:
        now = time.monotonic()
        heard_until = now if self._hear() else 0.0
        told: list[tuple[str, list[Event]]] = []
        storm = False
        with self._lock:
            for identity, share in self._shares.items():
                found, thinned = share.settle(time.monotonic(), heard_until)
                storm |= thinned
                if found:
                    told.append((identity, found))
            left = any(len(share.window) for share in self._shares.values())
        self._due = time.monotonic() + (_STORM if storm else _AGAIN) if left or storm else None
        for identity, found in told:
            self._on_events(identity, found)
