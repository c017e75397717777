"""The file of a saved memory: whole, or refused."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from launcher import ramfile
from launcher.errors import Damaged

DATA = os.urandom(300_000) + bytes(2_000_000) + b"words " * 100_000


def write(path: Path, data: bytes, identity: str = "one") -> int:
    source, sink = os.pipe()

    def feed() -> None:
        # Where nothing is taken the pipe breaks, at the latest when it is closed.
        with contextlib.suppress(BrokenPipeError), os.fdopen(sink, "wb") as pipe:
            pipe.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        return ramfile.write(source, path, identity, lambda _count: None)
    finally:
        os.close(source)
        feeder.join()


def read(path: Path, identity: str = "one") -> bytes:
    source, sink = os.pipe()
    failed: list[Exception] = []

    def pump() -> None:
        try:
            ramfile.read(path, sink, identity)
        except (OSError, Damaged) as error:
            failed.append(error)
        finally:
            os.close(sink)

    reader = threading.Thread(target=pump)
    reader.start()
    with os.fdopen(source, "rb") as pipe:
        got = pipe.read()
    reader.join()
    if failed:
        raise failed[0]
    return got


@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["nothing", "a byte", "megabytes"])
def test_there_and_back(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "memory"
    assert write(path, data) == len(data)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read(path) == data


def test_one_that_is_cut_short_changed_or_anothers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    write(path, DATA)
    whole = path.read_bytes()
    with pytest.raises(Damaged, match="is not what this machine was saved to"):
        read(path, "another")
    for size in (0, 10, 72, 80, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(Damaged):
            read(path)
    for place in (0, 9, 73, 80, len(whole) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[place] ^= 0x40
        path.write_bytes(changed)
        with pytest.raises(Damaged):
            read(path)
    path.write_bytes(whole)
    assert read(path) == DATA


def test_nothing_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    write(path, b"first")
    with pytest.raises(FileExistsError):
        write(path, b"second")
    assert read(path) == b"first"
