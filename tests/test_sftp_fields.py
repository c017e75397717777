"""Fields, errors and positions, without a session."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from launcher.sftp import attrs, positions, room, status
from launcher.sftp.packets import Malformed, Reader, absolute
from launcher.sftp.stat import NOW, Change, Stat
from tests.sftpclient import Fields, s, u32
from tests.sftpclient import attrs as asked


def changed(payload: bytes) -> Change:
    return attrs.change(Reader(payload, 0, len(payload)))


def test_errors_of_any_system_are_linux_numbers() -> None:
    assert [status.linux(getattr(errno, name)) for name in ("ENOENT", "ENOTEMPTY", "ELOOP", "ENAMETOOLONG", "ENOTSUP")] == [
        2, 39, 40, 36, 95,
    ]  # fmt: skip
    assert status.linux(None) == status.linux(99_999) == 5
    assert [status.code(number) for number in (2, 13, 1, 30, 22, 38, 95, 28)] == [2, 3, 3, 3, 5, 8, 8, 4]
    assert b"/" not in status.words_of(FileNotFoundError(errno.ENOENT, "no such file", "/home/somebody"))


def test_times_have_nanoseconds_and_two_words() -> None:
    assert changed(asked(fine=(1, 2, -1, 5))) == Change(atime_ns=1_000_000_002, mtime_ns=-999_999_995)
    assert changed(asked(fine=(0, attrs.UTIME_NOW, 0, attrs.UTIME_OMIT))) == Change(atime_ns=NOW, mtime_ns=None)
    assert changed(asked(times=(7, 8), fine=(1, 0, 2, 0))).atime_ns == 1_000_000_000
    # One nanosecond before 1970 is no word for now.
    assert changed(asked(fine=(-1, 999_999_999, 0, 0))).atime_ns == 0
    for wrong in ((0, 10**9, 0, 0), (1 << 40, 0, 0, 0)):
        with pytest.raises(OSError) as caught:
            changed(asked(fine=wrong))
        assert caught.value.errno == errno.EINVAL


def test_owners_that_are_nobody_stay() -> None:
    assert changed(asked(uid=0xFFFFFFFF, gid=7)) == Change(uid=None, gid=7)
    assert changed(asked(mode=0o107755)) == Change(mode=0o7755)
    assert changed(u32(0)) == Change()
    with pytest.raises(Malformed):
        changed(struct.pack(">II", 0x80000000, 0xFFFFFFFF) + s(b"a") + s(b"b"))


def test_attributes_beyond_what_version_3_knows() -> None:
    stat = Stat(0o100644, 1 << 40, -2, 1 << 40, 1 << 33, 1 << 70, 0, 8, -1, 5_000_000_000 * 10**9, -(10**9))
    shown = Fields(attrs.full(stat, 1)).attrs()
    assert (shown.atime, shown.mtime, shown.uid, shown.size) == (0, 0xFFFFFFFF, 0xFFFFFFFE, 1 << 40)
    assert (shown.atime_ns, shown.mtime_ns, shown.ctime_ns, shown.watched) == (-1, 5_000_000_000 * 10**9, -(10**9), 1)
    assert Fields(attrs.plain(stat)).attrs()[:6] == shown[:6]


def test_realpath_is_bounded() -> None:
    assert absolute(b"a/../../b/./c//") == b"/b/c"
    with pytest.raises(OSError):
        absolute(b"/" + b"x" * 5000)


def test_positions_without_pread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "_write_at", positions.seek_and_write)
    fd = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    try:
        positions.write_all(fd, memoryview(b"world"), 5, appends=False)
        positions.write_all(fd, memoryview(b"hello"), 0, appends=False)
        assert positions.seek_and_read(fd, 100, 3) == b"loworld"
    finally:
        os.close(fd)


def test_what_is_written_in_part_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "_write_at", lambda fd, data, offset: os.pwrite(fd, data[:3], offset))
    fd = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    try:
        positions.write_all(fd, memoryview(b"0123456789"), 2, appends=False)
        assert os.pread(fd, 100, 2) == b"0123456789"
    finally:
        os.close(fd)


def test_no_fallocate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_function", lambda: None)
    with pytest.raises(OSError) as caught:
        room.fallocate(0, 0, 0, 1)
    assert caught.value.errno == errno.EOPNOTSUPP
