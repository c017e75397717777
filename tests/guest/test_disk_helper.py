"""The disk helper: what a disk is, what may be formatted, and a kill at every write of a formatting."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from tests.conftest import SOAK
from tests.disksamples import FOREIGN, MIB, blank, digest, put, tool

from .helpers import helper, library

SIZE = 64 * MIB
KIB = str(63 * 1024)
HEADER = SIZE - 4096
# As in the guest's data-disk.
NEW = "nodiscard,assume_storage_prezeroed=1"
AGAIN = "nodiscard,lazy_itable_init=1,lazy_journal_init=1"


def disk(verb: str, device: Path, word: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}", **environment}
    return subprocess.run([helper("disk"), verb, device, word], capture_output=True, text=True, env=env)


def probe(device: Path, holds: str) -> dict[str, str]:
    """As the guest's shell reads it."""
    result = disk("probe", device, holds)
    assert result.returncode == 0, result.stderr
    script = f'{result.stdout}\nprintf \'%s\\n\' "$state" "$layout" "$clean" "$grow" "$kib" "$found"'
    values = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(zip(("state", "layout", "clean", "grow", "kib", "found"), values, strict=True))


@pytest.fixture
def device(tmp_path: Path) -> Path:
    return blank(tmp_path / "disk", SIZE)


def mkfs(device: Path, *options: str, **environment: str) -> int:
    kib = device.stat().st_size // 1024 - 1024
    words = [tool("mkfs.ext4"), "-q", "-F", "-L", "wherry-data", "-m", "1", "-E", *(options or (NEW,)), device, f"{kib}k"]
    return subprocess.run(words, env={**os.environ, **environment}).returncode


def make_ours(device: Path) -> None:
    assert disk("begin", device, "nothing").returncode == 0
    assert mkfs(device) == 0
    assert disk("end", device, "1").returncode == 0


def test_zeroes_are_blank_when_the_host_says_so_too(device: Path) -> None:
    assert probe(device, "nothing") == {"state": "blank", "layout": "0", "clean": "no", "grow": "no", "kib": KIB, "found": ""}


@pytest.mark.parametrize("holds", ["little", "much", "", "whatever"])
def test_zeroes_at_the_edges_are_not_enough(device: Path, holds: str) -> None:
    put(device, SIZE // 2, b"x")
    assert probe(device, holds)["state"] == "foreign"
    before = digest(device)
    assert disk("begin", device, holds).returncode == 1
    assert digest(device) == before


@pytest.mark.parametrize("offset", [0, 4 * MIB - 1, 60 * MIB, SIZE - 1])
def test_one_byte_at_an_edge_is_enough(device: Path, offset: int) -> None:
    put(device, offset, b"x")
    assert probe(device, "nothing")["state"] == "foreign"
    before = digest(device)
    assert disk("begin", device, "nothing").returncode == 1
    assert digest(device) == before


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("ours_before", [False, True], ids=["new", "over-ours"])
def test_what_others_made_is_named_and_left_alone(tmp_path: Path, name: str, ours_before: bool) -> None:
    """Also with our header left behind it, and whatever the host says."""
    make, words = FOREIGN[name]
    device = blank(tmp_path / "disk", 512 * MIB)  # btrfs and xfs want that much
    if ours_before:
        if name in ("middle", "ext4-named-like-ours"):
            pytest.skip("that is ours, then")
        assert disk("begin", device, "nothing").returncode == 0
        assert disk("end", device, "1").returncode == 0
    make(device)
    before = digest(device)
    for holds in ("nothing", "little", "much") if name != "middle" else ("little", "much"):
        assert probe(device, holds)["state"] == "foreign"
        assert probe(device, holds)["found"] == words
        assert disk("begin", device, holds).returncode == 1
    if not ours_before:
        assert disk("end", device, "1").returncode == 1
    assert digest(device) == before


@pytest.mark.parametrize("name", [name for name in FOREIGN if name not in ("middle", "ext4-named-like-ours")])
def test_the_mark_of_a_formatting_gives_no_right_to_what_others_made(tmp_path: Path, name: str) -> None:
    device = blank(tmp_path / "disk", 512 * MIB)
    FOREIGN[name][0](device)
    put(device, 512 * MIB - 4096, b"wherry data disk, formatting\n".ljust(4096, b"\0"))
    before = digest(device)
    assert probe(device, "little")["state"] == "foreign"
    assert disk("begin", device, "little").returncode == 1
    assert digest(device) == before


def test_two_signatures_at_once(device: Path) -> None:
    subprocess.run([tool("mkswap"), "-q", device], check=True)
    put(device, 32 * 1024 + 1, b"CD001")  # ISO 9660, ECMA-119 8.1
    put(device, 64 * 1024 + 64, b"_BHRfS_M")
    assert probe(device, "much")["state"] == "foreign"
    assert disk("begin", device, "nothing").returncode == 1


def test_a_cut_formatting_is_known_by_its_header(device: Path) -> None:
    assert disk("begin", device, "nothing").returncode == 0
    with device.open("rb") as file:
        file.seek(HEADER)
        assert file.read().rstrip(b"\0") == b"wherry data disk, formatting\n"
    assert probe(device, "little")["state"] == "partial"
    put(device, 1024 * 1024, os.urandom(100_000))
    assert probe(device, "little")["state"] == "partial"
    assert probe(device, "much") == {
        "state": "foreign", "layout": "0", "clean": "no", "grow": "no", "kib": KIB,
        "found": "the mark of a formatting and far more data than one leaves",
    }  # fmt: skip
    assert disk("begin", device, "little").returncode == 0


def test_our_file_system(device: Path) -> None:
    make_ours(device)
    expected = {"state": "ours", "layout": "1", "clean": "yes", "grow": "no", "kib": KIB, "found": ""}
    assert probe(device, "little") == probe(device, "much") == expected
    before = digest(device)
    assert disk("begin", device, "nothing").returncode == 1
    assert digest(device) == before
    put(device, 1024 + 0x3A, struct.pack("<H", 0))
    assert probe(device, "much")["clean"] == "no"


def test_another_layout_is_told_before_anything_is_mounted(device: Path) -> None:
    make_ours(device)
    assert disk("end", device, "2").returncode == 0
    assert probe(device, "much")["layout"] == "2"
    put(device, HEADER, b"wherry data disk, something later\n")
    assert probe(device, "much")["state"] == "foreign"
    assert probe(device, "much")["found"] == "a data disk of a newer wherry"


def test_a_file_system_that_is_not_recognized_any_more_is_still_ours(device: Path) -> None:
    make_ours(device)
    put(device, 0, os.urandom(8192))
    assert probe(device, "much")["state"] == "damaged"
    assert disk("begin", device, "nothing").returncode == 1


def test_a_larger_disk_grows_and_a_shorter_one_is_told(device: Path) -> None:
    make_ours(device)
    with device.open("r+b") as stream:
        stream.truncate(128 * MIB)
    assert probe(device, "much") == {
        "state": "ours", "layout": "1", "clean": "yes", "grow": "yes", "kib": str(127 * 1024), "found": ""
    }  # fmt: skip
    assert disk("end", device, "1").returncode == 0
    with device.open("rb") as file:
        file.seek(128 * MIB - 4096)
        assert file.read().rstrip(b"\0") == b"wherry data disk, layout 1\n"
    with device.open("r+b") as stream:
        stream.truncate(48 * MIB)
    assert probe(device, "much")["state"] == "foreign"
    assert "cut short" in probe(device, "much")["found"]


def test_a_device_that_is_too_small_or_absent(tmp_path: Path) -> None:
    assert disk("probe", blank(tmp_path / "small", MIB), "nothing").returncode == 1
    assert disk("probe", tmp_path / "none", "nothing").returncode == 1


def test_without_blkid_nothing_is_decided(device: Path) -> None:
    put(device, 100, b"x")
    assert disk("probe", device, "much", PATH="/nowhere").returncode == 1


def killed_format(device: Path, at: int, extended: str) -> bool:
    """A formatting, killed at its write number `at`, counted over the processes that make it; True when it came to its end.
    The order is that of the guest's data-disk."""
    count = device.with_name("writes")
    count.write_bytes(struct.pack("<i", 0))
    environment = {"LD_PRELOAD": str(library("killwrites")), "KILL_COUNT": str(count), "KILL_AT": str(at)}
    holds = "little" if extended == AGAIN else "nothing"
    return (
        disk("begin", device, holds, **environment).returncode == 0
        and mkfs(device, extended, **environment) == 0
        and disk("end", device, "1", **environment).returncode == 0
    )


def test_a_kill_at_any_write_is_begun_again(device: Path) -> None:
    at, states = 0, []
    while True:
        blank(device, 16 * MIB)
        at += 1
        if killed_format(device, at, NEW):
            break
        # The host's word: what is allocated in the file.
        states.append(probe(device, "little" if device.stat().st_blocks else "nothing")["state"])
        if states[-1] == "partial" and (at % 5 == 0 or SOAK):
            again(device, at)
    # Before the header, then until it is replaced; the last kill is between that write and its fsync.
    assert states[0] == "blank" and set(states[1:-1]) == {"partial"} and states[-1] == "ours"
    assert len(states) > 15, "mkfs writes more often than that"


def again(device: Path, at: int) -> None:
    """Killed at the same place a second time, it is still begun again, and what comes of it is whole."""
    killed_format(device, at, AGAIN)
    if probe(device, "little")["state"] != "ours":
        assert killed_format(device, 0, AGAIN)
    assert probe(device, "little")["state"] == "ours"
    check = subprocess.run([tool("e2fsck"), "-f", "-n", device], capture_output=True, text=True)
    assert check.returncode == 0, (at, check.stdout)
