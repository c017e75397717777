"""A folder as one tar stream: read once, never whole in memory, links as links, nothing followed out of the folder."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

from launcher import host
from launcher.cli.ignore import Ignore
from launcher.errors import WherryError
from launcher.report import Reporter

_CHUNK: Final = 256 << 10


@dataclass(frozen=True)
class Entry:
    """A file, folder or link to send: its name in the archive, with slashes, and what it was when it was looked at."""

    name: str
    path: Path
    found: os.stat_result

    @property
    def size(self) -> int:
        return self.found.st_size if stat.S_ISREG(self.found.st_mode) else 0


def walk(root: Path, ignore: Ignore | None = None) -> list[Entry]:
    """What is to be sent, sorted; folders come before what is in them. Sockets, pipes and devices are left out."""
    entries: list[Entry] = []
    _walk(root, "", ignore, entries)
    return entries


def _walk(folder: Path, prefix: str, ignore: Ignore | None, entries: list[Entry]) -> None:
    try:
        with os.scandir(folder) as listing:
            children = sorted(listing, key=lambda child: child.name)
    except OSError as error:
        raise WherryError(f"{folder} cannot be read: {error.strerror}.") from error
    for child in children:
        name = prefix + child.name
        try:
            found = child.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # gone since the folder was listed
        out = ignore is not None and ignore.excludes(name)
        kind = stat.S_IFMT(found.st_mode)
        if not out and kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            entries.append(Entry(name, Path(child.path), found))
        if kind == stat.S_IFDIR and not (out and ignore is not None and not ignore.enters(name)):
            _walk(Path(child.path), f"{name}/", ignore, entries)


def fingerprint(entries: list[Entry]) -> str:
    """Changes when a name, size, mode or time of change does; cheap, since no file is read."""
    digest = hashlib.sha256()
    for entry in entries:
        found = entry.found
        about = (entry.name, found.st_mode, entry.size, found.st_mtime_ns if entry.size else 0, found.st_ino)
        digest.update(repr(about).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


class _Stream:
    """What tarfile writes to."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self.over = False

    def write(self, data: bytes) -> int:
        if not self.over:  # else it is tarfile, which flushes what is left when it is thrown away
            self._write(bytes(data))
        return len(data)


def send(
    entries: list[Entry], write: Callable[[bytes], None], report: Reporter, *, prefix: str = "", keep_owner: bool = False,
    extra: Sequence[tuple[str, bytes]] = (),
) -> None:  # fmt: skip
    """Write the entries as a tar. GNU format: the machine's busybox tar drops the long names of the pax format."""
    stream = _Stream(write)
    archive = tarfile.open(  # noqa: SIM115  closed below only when all is written: a tar cut off must not look whole
        fileobj=cast(IO[bytes], stream), mode="w|", format=tarfile.GNU_FORMAT, bufsize=_CHUNK,
        encoding="utf-8", errors="surrogateescape",
    )  # fmt: skip
    try:
        _fill(archive, entries, report, prefix, keep_owner, extra)
        archive.close()
    finally:
        stream.over = True
    report.progress("copy", 1, 1)


def _fill(
    archive: tarfile.TarFile, entries: list[Entry], report: Reporter, prefix: str, keep_owner: bool,
    extra: Sequence[tuple[str, bytes]],
) -> None:  # fmt: skip
    total = sum(entry.size for entry in entries)
    done = 0
    for entry in entries:
        info = _info(entry, prefix, keep_owner)
        if info is None:
            continue
        if not info.isreg():
            archive.addfile(info)
            continue
        try:
            file = entry.path.open("rb")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise WherryError(f"{entry.path} cannot be read: {error.strerror}.") from error
        with file:
            # The size is the open file's: its name may point to a new file by now.
            info.size = os.fstat(file.fileno()).st_size
            archive.addfile(info, cast(IO[bytes], _Exactly(file, info.size, entry.path, report)))
        done = min(done + info.size, total)
        report.progress("copy", done, max(total, 1) + 1)
    for name, data in extra:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        archive.addfile(info, cast(IO[bytes], _Exactly(_bytes(data), len(data), Path(name), report)))


def _bytes(data: bytes) -> IO[bytes]:
    import io

    return io.BytesIO(data)


class _Exactly:
    """Reads exactly `size` bytes of a file that may change under us: the header with its size is out already."""

    def __init__(self, file: IO[bytes], size: int, path: Path, report: Reporter) -> None:
        self._file, self._left, self._path, self._report = file, size, path, report
        self._short = False

    def read(self, count: int = -1) -> bytes:
        count = self._left if count < 0 else min(count, self._left)
        data = b"" if self._short else self._file.read(count)
        if len(data) < count:
            if not self._short:
                self._report.warn(f"{self._path} became shorter while it was read; it is filled up with zeros.")
            self._short = True
            data += bytes(count - len(data))
        self._left -= count
        return data


def _info(entry: Entry, prefix: str, keep_owner: bool) -> tarfile.TarInfo | None:
    info = tarfile.TarInfo(prefix + entry.name)
    info.mode = host.current().archive_mode(stat.S_IMODE(entry.found.st_mode))
    info.mtime = int(entry.found.st_mtime)
    if keep_owner:
        info.uid, info.gid = entry.found.st_uid, entry.found.st_gid
    if stat.S_ISDIR(entry.found.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(entry.found.st_mode):
        info.type = tarfile.SYMTYPE
        try:
            info.linkname = os.readlink(entry.path).replace(os.sep, "/")  # noqa: PTH115  a Path would tidy it
        except OSError:
            return None
    return info


def feeder(*arguments: Any, **options: Any) -> Callable[[Callable[[bytes], None]], None]:
    """`send` as the feed of remote.call."""
    entries, report = arguments

    def feed(write: Callable[[bytes], None]) -> None:
        send(entries, write, report, **options)

    return feed
