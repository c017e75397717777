"""Files that matter: written whole or not at all, and what killed commands left of that."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

from launcher import host
from launcher.errors import Damaged

# .NAME.PID-RANDOM: the pid tells whether the one who writes is still there.
_TEMPORARY: Final = re.compile(r"\..+\.(?P<pid>[0-9]{1,10})-[0-9a-f]{8}(?:\.deleted)?")
_BLOCK: Final = 64 << 10


def temporary(path: Path) -> Path:
    """A name beside `path` for what is to become it. Should we be killed before, `leftovers` finds it."""
    return path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")


def write_private(path: Path, data: bytes) -> None:
    """Write a 0600 file whole or not at all: a temporary name beside it, synced, renamed, the folder synced.

    Raises OSError with the file's name.
    """
    written = temporary(path)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(written, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        host.current().replace(written, path)
        host.current().sync_folder(path.parent)
    except BaseException as error:
        written.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def read_texts(path: Path) -> list[str]:
    """A JSON list of texts, empty where there is no file. Raises Damaged for anything else: it is not to be written over."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise Damaged(f"{path} cannot be read: {error}.", hint="Mend the file, or move it away.") from error
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Damaged(f"{path} is no list of texts.", hint="Mend the file, or move it away.")
    return value


def sync(path: Path) -> None:
    """Make the content of a file last that another program wrote."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file; blocks of zeros stay holes. The target is 0600."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    with source.open("rb") as reader, os.fdopen(os.open(target, flags, 0o600), "wb") as writer:
        while data := reader.read(_BLOCK):
            if data.count(0) == len(data):
                writer.seek(len(data), os.SEEK_CUR)
            else:
                writer.write(data)
        writer.truncate()


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and folders in `folder` whose writer is gone."""
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []
    return [path for path in found if (match := _TEMPORARY.fullmatch(path.name)) and not _lives(int(match["pid"]))]


def sweep(folder: Path) -> list[Path]:
    """Remove the leftovers; the names of those that went. What cannot be removed stays for the next time."""
    import shutil

    gone = []
    for path in leftovers(folder):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            try:
                path.unlink(missing_ok=True)
            except OSError:
                continue
        if not os.path.lexists(path):
            gone.append(path)
    return gone


def _lives(pid: int) -> bool:
    return pid == os.getpid() or host.current().process_stamp(pid) is not None
