"""Which process is ours: pid, stamp and token; found again when no file names it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from launcher import host, identity
from launcher.identity import Found
from launcher.keeper.launch import UNKNOWN_EXIT, Adopted

TOKEN = "0123456789abcdef"
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """A process with the command line of a QEMU of ours, as far as it is looked at."""
    children: list[subprocess.Popen[bytes]] = []

    def run(cwd: Path, *words: str) -> subprocess.Popen[bytes]:
        code = "import sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
        child = subprocess.Popen([sys.executable, "-c", code, *words], cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.read(1) == b"x"
        children.append(child)
        return child

    yield run
    for child in children:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            assert stream is not None
            stream.close()


def stamp(pid: int) -> str:
    found = host.current().process_stamp(pid)
    assert found is not None
    return found


def test_a_process_is_ours_by_pid_stamp_and_token(start: Start, tmp_path: Path) -> None:
    child = start(tmp_path, "-name", f"wherry-default-{TOKEN}")
    mark = stamp(child.pid)
    assert identity.process_is(child.pid, mark, TOKEN)
    assert not identity.process_is(child.pid, mark, TOKEN[::-1])
    assert not identity.process_is(child.pid, mark + "0", TOKEN)
    assert not identity.process_is(child.pid, "", TOKEN)
    assert not identity.process_is(0, mark, TOKEN)
    child.kill()
    # A zombie, whose parent has not looked yet, is no process of ours any more.
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert not identity.process_is(child.pid, mark, TOKEN)
    child.wait()
    assert not identity.process_is(child.pid, mark, TOKEN)


@pytest.mark.skipif(host.current().NAME != "linux", reason="elsewhere the kernel notes the time of day, once")
def test_a_clock_that_is_set_changes_no_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel does to btime in /proc/stat when the clock is set back by a day."""
    before, created = stamp(os.getpid()), psutil.Process().create_time()
    module = sys.modules["psutil._pslinux"]
    booted = module.boot_time()
    monkeypatch.setattr(module, "boot_time", lambda: booted - 86400)
    monkeypatch.setattr(module, "BOOT_TIME", None, raising=False)
    assert abs(psutil.Process().create_time() - created) > 80000  # what was compared before
    assert stamp(os.getpid()) == before


def test_a_name_with_brackets_is_read_past(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 ("
    program.symlink_to("/bin/cat")
    with subprocess.Popen([program], stdin=subprocess.PIPE) as child:
        assert stamp(child.pid).rpartition("-")[2].isdigit()
        assert child.stdin is not None
        child.stdin.close()


def test_qemus_are_found_by_token_and_folder(start: Start, tmp_path: Path) -> None:
    ours, other = tmp_path / "one" / "default", tmp_path / "two" / "default"
    ours.mkdir(parents=True)
    other.mkdir(parents=True)
    child = start(ours, "-name", f"wherry-default-{TOKEN}", "-accel", "tcg,thread=single")
    start(other, "-name", "wherry-default-ffffffffffffffff")  # another home's machine of the same name
    start(ours, "-name", "wherry-default")
    start(ours, "grep", f"wherry-default-{TOKEN}")
    (found,) = identity.qemus(ours)
    assert (found.pid, found.token, found.value("-accel")) == (child.pid, TOKEN, "tcg,thread=single")
    assert found.value("-cpu") == ""
    # The folder is moved: it is still the one that works in it.
    moved = tmp_path / "moved"
    ours.rename(moved)
    assert [one.pid for one in identity.qemus(moved)] == [child.pid]
    assert identity.qemus(ours) == []


def test_a_process_that_got_the_pid_later_is_never_signalled(start: Start, tmp_path: Path) -> None:
    child = start(tmp_path, "-name", f"wherry-default-{TOKEN}")
    earlier = Adopted(Found(child.pid, stamp(child.pid) + "0", TOKEN, ()))
    earlier.kill()
    assert earlier.poll() == UNKNOWN_EXIT
    other = Adopted(Found(child.pid, stamp(child.pid), TOKEN[::-1], ()))
    other.kill()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    real = Adopted(Found(child.pid, stamp(child.pid), TOKEN, ()))
    assert real.wait(0.2) is None
    real.kill()
    assert real.wait(10) == UNKNOWN_EXIT
    assert child.wait(10) == -9


def test_who_holds_a_file(tmp_path: Path) -> None:
    file = tmp_path / "lock.qemu"
    with file.open("w"):
        assert [line for line in identity.holders(file) if line.startswith(f"{os.getpid()} ")]
    assert identity.holders(file) == []
