"""A shared folder on a disk of the host that is full: whoever writes is told, and nothing is lost in silence."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest

from .sharemount import CHECKED, mounted, needs_fuse

SIZE = 1 << 20


@pytest.mark.parametrize("size", [100, 5_000, 200_000, 4 << 20])
def test_a_full_disk_is_told_to_who_writes(tmp_path: Path, size: int) -> None:
    needs_fuse()
    (host := tmp_path / "host").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", host], check=True)
    try:
        with mounted(tmp_path, *CHECKED) as share:
            told = 0
            for number in range(2 * SIZE // max(size, 4096) + 2):
                try:
                    with (share.path / f"f{number}").open("wb", buffering=0) as file:
                        for start in range(0, size, 65536):
                            part = b"x" * min(65536, size - start)
                            assert file.write(part) == len(part)
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    told += 1
                    continue
                assert (host / f"f{number}").stat().st_size == size
            assert told
            (share.path / f"f{number}").unlink()
            (share.path / "f0").unlink()
            (share.path / "small").write_bytes(b"fits again")
            assert (host / "small").read_bytes() == b"fits again"
    finally:
        subprocess.run(["umount", "-l", host], check=True)
