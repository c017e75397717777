"""The summary of an MSI (learn.microsoft.com: "Summary Information Stream", [MS-OLEPS]).

msibuild writes the time of the build and a random number into it. Here both follow from what is in the package: the same
input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from installers.tools import BuildError, run

_STREAM: Final = "\x05SummaryInformation"
_NUMBER, _MADE, _SAVED = 9, 12, 13  # PID_REVNUMBER, PID_CREATE_DTM, PID_LASTSAVE_DTM
_VALUE: Final = 4  # bytes of a property's type, before its value; a text has its length first
_SECONDS_TO_1970: Final = 11644473600  # a FILETIME counts 100 ns from 1601 on


def settle(package: Path, space: uuid.UUID, epoch: int) -> None:
    """Dates the package, and numbers it by its content: another content is another package for Windows Installer.

    Raises BuildError for what msibuild has not written.
    """
    data, before = package.read_bytes(), run(["msiinfo", "extract", package, _STREAM])
    if not before or data.count(before) != 1:
        raise BuildError(f"{package.name} has no summary in one piece")
    time = struct.pack("<Q", (epoch + _SECONDS_TO_1970) * 10**7)
    after = _with(before, {_MADE: lambda _: time, _SAVED: lambda _: time, _NUMBER: lambda old: bytes(len(old))})
    digest = hashlib.sha256(data.replace(before, after)).hexdigest()
    number = f"{{{str(uuid.uuid5(space, digest)).upper()}}}".encode()
    package.write_bytes(data.replace(before, _with(after, {_NUMBER: lambda _: number})))


def _with(stream: bytes, changes: dict[int, Callable[[bytes], bytes]]) -> bytes:
    """The stream with other values of the same length."""
    changed = bytearray(stream)
    section = struct.unpack_from("<I", stream, 44)[0]
    for number in range(struct.unpack_from("<I", stream, section + 4)[0]):
        kind, offset = struct.unpack_from("<II", stream, section + 8 + 8 * number)
        if kind in changes:
            start = section + offset + _VALUE
            if kind == _NUMBER:
                start, size = start + 4, struct.unpack_from("<I", stream, start)[0] - 1  # a zero ends it
            else:
                size = 8
            value = changes[kind](stream[start : start + size])
            assert len(value) == size, f"property {kind} has {size} bytes"
            changed[start : start + size] = value
    return bytes(changed)
