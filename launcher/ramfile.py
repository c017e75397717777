"""The memory of a suspended machine as a file: zstd, with a checksum over all of it, behind a frame that tells whose it is.

That frame is one which every decoder skips (RFC 8878, 3.1.2), so `zstd -d` reads the file too.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from launcher.errors import Damaged

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK: Final = 1 << 20
_PIECE: Final = 1 << 17  # what is decompressed at a time: it stays in the processor's cache until it is written
# 397 MB of a guest are 140 MB, unpacked in 0.29 s of a CPU; by level 1 they are 126 MB and 0.38 s, by -5 176 MB and 0.30 s.
_LEVEL: Final = -1
_SKIPPED: Final = struct.Struct("<II")  # magic, length
_MAGIC: Final = 0x184D2A57
_ID_BYTES: Final = 64

_OPTIONS: Final[dict[int, int]] = {
    zstd.CompressionParameter.compression_level: _LEVEL,
    zstd.CompressionParameter.checksum_flag: 1,
}


def write(source: int, target: Path, identity: str, progress: Callable[[int], None]) -> int:
    """Compress all that comes from the descriptor `source` into a new 0600 file, and sync it; how many bytes came.

    `progress` hears that number from time to time. Raises OSError, also of a full disk; the file is left to the caller then.
    """
    packer, count = zstd.ZstdCompressor(options=_OPTIONS), 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(target, flags, 0o600), "wb", buffering=CHUNK) as file:
        file.write(_head(identity))
        while data := os.read(source, CHUNK):
            count += len(data)
            file.write(packer.compress(data))
            progress(count)
        file.write(packer.flush())
        file.flush()
        os.fsync(file.fileno())
    return count


def read(path: Path, target: int, identity: str) -> None:
    """Decompress all of the file into the descriptor `target`. Raises Damaged for a file that is cut short, changed or another
    one's: after some of it was written, so nobody may use what came before this returns. OSError as the system does."""
    unpacker = zstd.ZstdDecompressor()
    with path.open("rb", buffering=0) as file:
        head = _head(identity)
        if file.read(len(head)) != head:
            raise Damaged(f"{path} is not what this machine was saved to.")
        try:
            while not unpacker.eof:
                data = file.read(CHUNK) if unpacker.needs_input else b""
                if not data and unpacker.needs_input:
                    raise Damaged(f"{path} is cut short.")
                _write(target, unpacker.decompress(data, max_length=_PIECE))
        except zstd.ZstdError as error:
            raise Damaged(f"{path} is damaged: {error}.") from error


def _head(identity: str) -> bytes:
    data = identity.encode("ascii").ljust(_ID_BYTES, b"\0")
    return _SKIPPED.pack(_MAGIC, len(data)) + data


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
