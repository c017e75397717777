"""Owners and modes that the guest asked for: in a dict for looking, in a file for keeping (ownerfile.py)."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from launcher import host
from launcher.sftp.ownerfile import OwnerFile, Row, Unusable, failure, is_damage, set_aside
from launcher.sftp.remembered import At, Found, Owner

MOST: Final = 500_000  # rows: 70 MB of memory, 40 MB of disk
_SYNC_SECONDS: Final = 1.0
_MASK: Final = (1 << 64) - 1
_SAME: Final = 1  # microseconds: st_birthtime of macOS is a float
_NO_MODE: Final = 0xFFFF


class Owners:
    """What is remembered of one share; `launcher.sftp.remembered.Remembered`. Thread-safe; one process at a time."""

    def __init__(self, path: Path, device: int, *, most: int = MOST) -> None:
        """`path` is the file, `device` the st_dev of the share's root. A file that is damaged, of a newer version or in use is
        no error: `notes` tells."""
        self._path = path
        self._device = device
        self._most = most
        self._lock = threading.Lock()
        self._notes: list[str] = []
        # Numbers packed into numbers: tuples would take three times the memory. See _key and _pack.
        self._rows: dict[int, int] = {}
        self._file = self._opened()
        if len(self._rows) > most:
            self._drop_oldest()
        self._dirty = threading.Event()
        self._closing = threading.Event()
        self._syncer = threading.Thread(target=self._sync_now_and_then, name="wherry-owners", daemon=True)
        self._syncer.start()

    @property
    def empty(self) -> bool:
        return not self._rows

    @property
    def count(self) -> int:
        return len(self._rows)

    def notes(self) -> list[str]:
        """What the user should know, each once."""
        with self._lock:
            found, self._notes = self._notes, []
        return found

    def of(self, st: Found, at: At = None) -> Owner | None:
        packed = self._rows.get(self._key(st))
        if packed is None:
            return None
        birth, owner = _unpack(packed)
        now = host.current().birth_time(st, at) if birth else None
        if now is None or abs(max(now, 0) - birth) <= _SAME:
            return owner
        # Another file with the inode of one that was deleted on this computer.
        self._drop(self._key(st), packed)
        return None

    def remember(self, st: Found, owner: Owner, at: At = None) -> None:
        key = self._key(st)
        birth = max(host.current().birth_time(st, at) or 0, 0)
        packed = _pack(birth, owner)
        with self._lock:
            if self._rows.get(key) == packed:  # `chown -R` at every start of a database
                return
            self._write(lambda: self._file.put(_row(key, packed)))
            # Its place in the dict is its turn, as in the file.
            self._rows.pop(key, None)
            self._rows[key] = packed
            if len(self._rows) > self._most:
                self._drop_oldest()
        self._dirty.set()

    def forget(self, st: Found) -> None:
        key = self._key(st)
        packed = self._rows.get(key)
        if packed is not None:
            self._drop(key, packed)

    def close(self) -> None:
        """Everything is on the disk after it. Raises nothing, may be called again."""
        self._closing.set()
        self._dirty.set()
        self._syncer.join()
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._file.close()

    def _opened(self) -> OwnerFile:
        try:
            opened = OwnerFile(self._path)
        except Unusable as error:
            return self._without(str(error)) if error.taken else self._anew(str(error))
        except OSError as error:
            return self._without(str(error))
        try:
            self._rows = {row.device << 64 | row.inode: _pack(row.birth, Owner(*row[3:])) for row in opened.rows()}
        except (sqlite3.Error, TypeError) as error:
            opened.close()
            return self._anew(f"it is damaged: {error}")
        return opened

    def _anew(self, why: str) -> OwnerFile:
        try:
            aside = set_aside(self._path)
            opened = OwnerFile(self._path)
        except (OSError, Unusable) as error:
            return self._without(f"{why}; {error}")
        self._notes.append(f"{self._path} is begun anew: {why}. What was there is in {aside}.")
        return opened

    def _without(self, why: str) -> OwnerFile:
        self._notes.append(f"Owners and modes of files are kept until the share ends only: {self._path}: {why}.")
        return OwnerFile(None)

    def _drop(self, key: int, packed: int) -> None:
        with self._lock:
            if self._rows.get(key) != packed:  # another thread was faster, or has remembered what is there now
                return
            del self._rows[key]
            # Should that not be kept: the next file with its inode has another birth time.
            with contextlib.suppress(OSError):
                self._write(lambda: self._file.drop(key >> 64, key & _MASK))
        self._dirty.set()

    def _drop_oldest(self) -> None:
        # Some hundreds at once: finding the first of a dict whose first were deleted costs a walk over their places.
        count = len(self._rows) - self._most + self._most // 100
        with contextlib.suppress(OSError):
            self._write(lambda: self._file.drop_oldest(count))
        for key in list(islice(self._rows, count)):
            del self._rows[key]

    def _write(self, step: Callable[[], None]) -> None:
        """Raises OSError when it could not be done."""
        try:
            try:
                step()
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                self._replace(str(error))
                step()
        except sqlite3.Error as error:
            raise failure(error) from error

    def _replace(self, why: str) -> None:
        """The file has gone bad under us: all of it is in memory."""
        with contextlib.suppress(sqlite3.Error):
            self._file.close()
        self._file = self._anew(f"it is damaged: {why}")
        self._file.fill(self._all())

    def _all(self) -> Iterator[Row]:
        return (_row(key, packed) for key, packed in self._rows.items())

    def _sync_now_and_then(self) -> None:
        while not self._closing.is_set():
            self._dirty.wait()
            self._closing.wait(_SYNC_SECONDS)
            self._dirty.clear()
            with self._lock:
                try:
                    self._file.sync()
                except sqlite3.Error:
                    self._dirty.set()

    def _key(self, st: Found) -> int:
        # The share's own device is 0: a disk's number may change from one start of the computer to the next.
        device = 0 if st.st_dev == self._device else _folded(st.st_dev)
        return device << 64 | _folded(st.st_ino)


def _folded(number: int) -> int:
    # ReFS has file ids of 128 bits.
    return number if number <= _MASK else (number ^ number >> 64) & _MASK


def _pack(birth: int, owner: Owner) -> int:
    mode = _NO_MODE if owner.mode is None else owner.mode & 0o7777
    return ((birth << 32 | owner.uid & 0xFFFFFFFF) << 32 | owner.gid & 0xFFFFFFFF) << 16 | mode


def _unpack(packed: int) -> tuple[int, Owner]:
    mode = packed & 0xFFFF
    return packed >> 80, Owner(packed >> 48 & 0xFFFFFFFF, packed >> 16 & 0xFFFFFFFF, None if mode == _NO_MODE else mode)


def _row(key: int, packed: int) -> Row:
    birth, owner = _unpack(packed)
    return Row(key >> 64, key & _MASK, birth, *owner)
