"""What there is of a download: a file that is gone on with by the next command, never an ISO.

<cache>/iso/.download-<sha256>        the first bytes of the ISO with that hash
<cache>/iso/.download-<sha256>.json   where they came from, and the server's validator (RFC 9110, 8.8)
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from launcher import host, store

PREFIX: Final = ".download-"
_CHUNK: Final = 1 << 20


class Partial:
    """The bytes so far, with their SHA-256; the caller holds the cache's lock. Raises OSError."""

    def __init__(self, folder: Path, sha256: str) -> None:
        self.path = folder / f"{PREFIX}{sha256}"
        self._note = self.path.with_name(f"{self.path.name}.json")
        self._file: IO[bytes] = self.path.open("a+b")
        self.size = 0
        self.pieced = False  # whether the bytes come from more than one answer, which may not fit together
        self._digest = hashlib.sha256()
        self._read()

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._file.close()

    def _read(self) -> None:
        self._file.seek(0)
        while data := self._file.read(_CHUNK):
            self._digest.update(data)
            self.size += len(data)
        self.pieced = self.size > 0  # who knows what the command before met

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def restart(self) -> None:
        """From the first byte."""
        self._file.truncate(0)
        self.size, self.pieced = 0, False
        self._digest = hashlib.sha256()

    def validator(self, url: str) -> str | None:
        """The strong validator that this address gave for these bytes."""
        try:
            noted = json.loads(self._note.read_text(encoding="utf-8"))
            return str(noted["validator"]) if noted["url"] == url and noted["validator"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin_piece(self, url: str, validator: str) -> None:
        """What follows comes from that answer."""
        self.pieced = self.size > 0
        store.write_private(self._note, json.dumps({"url": url, "validator": validator}).encode())

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def take(self, target: Path) -> None:
        """The whole file gets another place; this one ends."""
        self.sync()
        self._file.close()
        host.current().replace(self.path, target)
        self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        with suppress(OSError):  # of a full disk: the last bytes have no place
            self._file.close()
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
