"""Disks that are somebody else's, made by the tools that make them everywhere. Raw files, sparse."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

MIB: Final = 1 << 20
_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"


def tool(name: str) -> str:
    """The program's path; the test is skipped where it is not installed."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def blank(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def put(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def digest(path: Path) -> str:
    """SHA-256 of a file's blocks of 4 KiB that are not zero, with their places: what a dense copy of it would hold.
    Where holes are is the file system's affair and may change."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        at = 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO, error  # no data behind this place
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            for block in range(at // 4096, -(-end // 4096)):
                data = os.pread(file.fileno(), 4096, block * 4096)
                if data.strip(b"\0"):
                    found.update(b"%d:" % block + data)
            at = end
    return found.hexdigest()


def _run(program: str, *words: str | Path, text: str = "") -> None:
    done = subprocess.run([tool(program), *words], input=text, capture_output=True, text=True)
    assert done.returncode == 0, (program, done.stdout, done.stderr)


def _ext4(disk: Path) -> None:
    _run("mkfs.ext4", "-q", "-F", disk)


def _named_like_ours(disk: Path) -> None:
    """As large as ours would be, too: only the header is missing."""
    _run("mkfs.ext4", "-q", "-F", "-L", "wherry-data", disk, f"{disk.stat().st_size // 1024 - 1024}k")


def _lvm(disk: Path) -> None:
    """What pvcreate writes: a label in the second sector and a metadata area (LVM2, lib/format_text/layout.h).
    pvcreate itself takes block devices only, and there are none for a user."""
    import struct
    import zlib

    size, identity = disk.stat().st_size, b"Wherry0testWherry0testWherry0abc"
    assert len(identity) == 32
    header = identity + struct.pack("<Q", size)
    header += struct.pack("<QQ", MIB, 0) + struct.pack("<QQ", 0, 0)  # data areas, end
    header += struct.pack("<QQ", 4096, MIB - 4096) + struct.pack("<QQ", 0, 0)  # metadata areas, end
    rest = struct.pack("<I", 32) + b"LVM2 001" + header.ljust(512 - 32, b"\0")
    # LVM's CRC starts at 0xf597a6cf and is not inverted at the end (lib/misc/crc.c).
    crc = zlib.crc32(rest, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    put(disk, 512, b"LABELONE" + struct.pack("<QI", 1, crc) + rest)


def _luks(disk: Path) -> None:
    cheap = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    _run("cryptsetup", "luksFormat", "-q", "--batch-mode", *cheap, "--key-file", "-", disk, text="secret")


def _mbr(disk: Path) -> None:
    _run("sfdisk", "-q", disk, text="label: dos\n2048,,83\n")


def _gpt(disk: Path) -> None:
    _run("sfdisk", "-q", disk, text="label: gpt\n2048,,L\n")


def _middle(disk: Path) -> None:
    """A file system that begins and ends well inside: both edges are as blank as a new disk's."""
    put(disk, disk.stat().st_size // 2, b"the only copy of something\n" * 5000)


# How to make each, and what it is called to the user.
FOREIGN: Final[dict[str, tuple[Callable[[Path], None], str]]] = {
    "ext4": (_ext4, "an ext4 file system"),
    "ext4-named-like-ours": (_named_like_ours, "an ext4 file system"),
    "xfs": (lambda disk: _run("mkfs.xfs", "-q", "-f", disk), "an xfs file system"),
    "btrfs": (lambda disk: _run("mkfs.btrfs", "-q", "-f", disk), "a btrfs file system"),
    "lvm": (_lvm, "a volume of LVM"),
    "luks": (_luks, "an encrypted volume (LUKS)"),
    "gpt": (_gpt, "a partition table (GPT)"),
    "mbr": (_mbr, "a partition table (MBR)"),
    "swap": (lambda disk: _run("mkswap", "-q", disk), "a swap area"),
    "middle": (_middle, "data in which no file system is recognized"),
}
