"""The file of remembered owners: SQLite, one for each share, written by one process.

Why it is as it is (https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_synchronous):

- A write-ahead log with `synchronous=NORMAL`: a statement that has returned is in the system's cache, where a killed process
  cannot take it along; the log is synced, and moved to the file, when `sync` says so (about once a second) or it has 4 MB. A
  power cut loses what came after, and damages nothing.
- `locking_mode=EXCLUSIVE`: no -shm file; the -wal is gone once the file is closed.
- Pages of 1 KB: a statement writes its whole pages to the log.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from launcher import host

# Each makes, of a file of the version that is its index, one of the next.
STEPS: tuple[str, ...] = (
    # turn: the order in which they came. device 0 is the share's own, whatever its number since the computer's last start.
    # birth: microseconds, 0 where it is not known.
    "CREATE TABLE owner (turn INTEGER PRIMARY KEY, device INTEGER NOT NULL, inode INTEGER NOT NULL, birth INTEGER NOT NULL,"
    " uid INTEGER NOT NULL, gid INTEGER NOT NULL, mode INTEGER, UNIQUE (device, inode))",
)
_PAGES: Final = 4096
_MASK: Final = (1 << 64) - 1
_WAIT_SECONDS: Final = 2  # for the process before us, that is being ended
_TAKEN: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
# SQLITE_ERROR: a table that is not as we know it.
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


class Row(NamedTuple):
    """Device, inode, uid and gid are unsigned."""

    device: int
    inode: int
    birth: int
    uid: int
    gid: int
    mode: int | None


class Unusable(Exception):
    """The file is not one that we can go on with. `taken`: another process has it."""

    def __init__(self, why: str, *, taken: bool = False) -> None:
        super().__init__(why)
        self.taken = taken


class OwnerFile:
    """An open file. Its methods raise sqlite3.Error, and are not called by two threads at once."""

    def __init__(self, path: Path | None) -> None:
        """Makes the file when it is missing; without a path, all is kept in memory only. Raises Unusable, or OSError when
        nothing can be made there."""
        self._connection = _connect(path)
        try:
            _prepare(self._connection)
            if path is not None:
                host.current().sync_folder(path.parent)
        except BaseException:
            self._connection.close()
            raise

    def rows(self) -> Iterator[Row]:
        """All of them, the least recently remembered first. TypeError for one that no program of ours has written."""
        query = "SELECT device, inode, birth, uid, gid, mode FROM owner ORDER BY turn"
        for device, inode, birth, uid, gid, mode in self._connection.execute(query):
            yield Row(device & _MASK, inode & _MASK, birth, uid, gid, mode)

    def put(self, row: Row) -> None:
        """Takes the place of the one with its device and inode."""
        self._connection.execute(_PUT, _values(row))

    def fill(self, rows: Iterable[Row]) -> None:
        """As `put`, all or none."""
        with _transaction(self._connection):
            self._connection.executemany(_PUT, map(_values, rows))

    def drop(self, device: int, inode: int) -> None:
        self._connection.execute("DELETE FROM owner WHERE device = ? AND inode = ?", (_signed(device), _signed(inode)))

    def drop_oldest(self, count: int) -> None:
        self._connection.execute("DELETE FROM owner WHERE turn IN (SELECT turn FROM owner ORDER BY turn LIMIT ?)", (count,))

    def sync(self) -> None:
        """Until here nothing is lost by a power cut."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        self._connection.close()


def remembers(path: Path) -> bool:
    """Whether such a file has owners in it. One that a process has open may; one that is not there or is damaged has none."""
    if not path.exists():
        return False
    try:
        with contextlib.closing(OwnerFile(path)) as file:
            return next(file.rows(), None) is not None
    except Unusable as error:
        return error.taken
    except (sqlite3.Error, OSError, TypeError):
        return False


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is bad, not the disk full or the like."""
    return error.sqlite_errorcode & 0xFF in _DAMAGED


def set_aside(path: Path) -> Path:
    """Move the file, with its log, out of the way; the one that was there before goes. Its new name. Raises OSError."""
    aside = path.with_name(f"{path.name}.aside")
    for suffix in ("-wal", "-shm", ""):
        # The log first: beside a new file, the log of an old one would be litter at best.
        Path(f"{aside}{suffix}").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
    return aside


_PUT: Final = "INSERT OR REPLACE INTO owner (device, inode, birth, uid, gid, mode) VALUES (?, ?, ?, ?, ?, ?)"


def _connect(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        # SQLite gives its log the mode of the file.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    name = ":memory:" if path is None else str(path)
    return sqlite3.connect(name, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("PRAGMA page_size=1024")
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_PAGES}")
        _upgrade(connection)
        complaint = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise _unusable(error) from error
    if complaint != "ok":
        raise Unusable(f"it is damaged: {complaint}")


def _upgrade(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 0 <= version <= len(STEPS):
        raise Unusable(f"it is of version {version}, and this one knows {len(STEPS)}")
    for number, step in enumerate(STEPS[version:], version + 1):
        with _transaction(connection):
            connection.execute(step)
            connection.execute(f"PRAGMA user_version={number}")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # it may have been rolled back by what went wrong
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _unusable(error: sqlite3.Error) -> Unusable | OSError:
    if is_damage(error):
        return Unusable(f"it is damaged: {error}")
    if error.sqlite_errorcode & 0xFF in _TAKEN:
        return Unusable("another process has it", taken=True)
    return failure(error)


def failure(error: sqlite3.Error) -> OSError:
    """What the guest is told."""
    full = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL
    return OSError(errno.ENOSPC if full else errno.EIO, f"The owners of files cannot be kept: {error}")


def _values(row: Row) -> tuple[int | None, ...]:
    return (_signed(row.device), _signed(row.inode), *row[2:])


def _signed(number: int) -> int:
    # SQLite's integers have a sign.
    return number - (_MASK + 1) if number > _MASK >> 1 else number
