"""Whole trees, by watchdog: FSEvents on macOS, ReadDirectoryChangesW on Windows. Each folder that a container has is one tree.

What these drop when they are busy the library does not say, and it does not tell of a rename above a tree: so its events are
for those who wait for them, and nothing counts as watched because of them (`certain`).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import ObservedWatch

from launcher.host import heard as words
from launcher.host.heard import Heard

log = logging.getLogger("wherry.shares.watch")

_LIMIT: Final = 65_536  # here only memory
_MOST_WAITING: Final = 100_000
_MASKS: Final = {
    "created": words.CREATE,
    "deleted": words.DELETE,
    "modified": words.MODIFY,
    "attrib": words.ATTRIB,
    "closed": words.CLOSE_WRITE,
}


class Library(FileSystemEventHandler):
    """A Source. `on_any_event` is called by the library's thread."""

    certain: Final = False

    def __init__(self) -> None:
        self._observer = Observer()
        self._observer.start()
        self._trees: dict[str, ObservedWatch] = {}
        self._lock = threading.Lock()  # of all below; nothing is called with it
        self._watches: dict[str, int] = {}
        self._paths: dict[int, str] = {}
        self._numbers = itertools.count(1)
        self._heard: deque[Heard] = deque()
        self._woken = threading.Event()

    def limit(self) -> int:
        return _LIMIT

    @contextlib.contextmanager
    def walk(self, root: Path) -> Iterator[Walk]:
        yield Walk(self, root)

    def watch(self, path: str, *, full: bool) -> int:
        """Raises OSError, ENOTSUP when it is in no tree."""
        if full and not any(_is_in(path, tree) for tree in self._trees):
            raise OSError(errno.ENOTSUP, "no tree that is watched", path)
        with self._lock:
            number = self._watches.get(path) or next(self._numbers)
            self._watches[path], self._paths[number] = number, path
        return number

    def remove(self, watch: int) -> None:
        with self._lock:
            path = self._paths.pop(watch, None)
            if path is not None:
                del self._watches[path]

    def trees(self, folders: Sequence[Path]) -> None:
        wanted = {os.path.realpath(folder) for folder in folders}
        wanted = {path for path in wanted if not any(path != other and _is_in(path, other) for other in wanted)}
        for path in self._trees.keys() - wanted:
            with contextlib.suppress(KeyError):  # its folder was removed, and the watch with it
                self._observer.unschedule(self._trees[path])
            del self._trees[path]
        for path in wanted - self._trees.keys():
            try:
                self._trees[path] = self._observer.schedule(self, path, recursive=True)
            except OSError as error:
                log.info("changes in %s are not heard of: %s", path, error)

    def wait(self, seconds: float | None) -> None:
        self._woken.wait(None if seconds is None else max(0.0, seconds))
        self._woken.clear()

    def wake(self) -> None:
        self._woken.set()

    def read(self) -> list[Heard]:
        with self._lock:
            found = list(self._heard)
            self._heard.clear()
        return found

    def renew(self) -> None:
        with self._lock:
            self._watches, self._paths = {}, {}
            self._heard.clear()

    def close(self) -> None:
        self._observer.stop()
        self._observer.join()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """A folder's own mtime says nothing that its names do not; names in folders at which nobody looks are left out here."""
        path, other = os.fsdecode(event.src_path), os.fsdecode(event.dest_path or "")
        with self._lock:
            if event.event_type == "moved":
                cookie = next(self._numbers)
                self._hear(path, words.MOVED_FROM, is_dir=event.is_directory, cookie=cookie)
                self._hear(other, words.MOVED_TO, is_dir=event.is_directory, cookie=cookie)
            elif not (event.is_directory and event.event_type == "modified"):
                self._hear(path, _MASKS.get(event.event_type, 0), is_dir=event.is_directory)
        self._woken.set()

    def _hear(self, path: str, mask: int, *, is_dir: bool, cookie: int = 0) -> None:
        # Of what is gone Windows does not say that it was a folder.
        flags = words.IS_DIR if is_dir or path in self._watches else 0
        folder, name = os.path.split(path)
        if mask and (watch := self._watches.get(folder)) is not None:
            self._heard.append(Heard(watch, mask | flags, cookie, os.fsencode(name)))
        if mask == words.DELETE and path in self._trees and (watch := self._watches.get(path)) is not None:
            self._heard.append(Heard(watch, words.DELETE_SELF | words.IGNORED, 0, b""))
        if len(self._heard) > _MOST_WAITING:
            self._heard.clear()
            self._heard.append(Heard(-1, words.OVERFLOW, 0, b""))


class Walk:
    """By path: what is found there is only heeded, never read."""

    def __init__(self, library: Library, root: Path) -> None:
        self._library = library
        self._path = os.path.realpath(root)

    def enter(self, name: bytes) -> None:
        path = self._path.rstrip(os.sep) + os.sep + os.fsdecode(name)
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        self._path = path

    def watch(self, *, full: bool) -> int:
        return self._library.watch(self._path, full=full)


def _is_in(path: str, tree: str) -> bool:
    return path == tree or path.startswith(tree.rstrip(os.sep) + os.sep)
