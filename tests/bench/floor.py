"""The floor of a start: the machine's own QEMU command by hand, with the same kernel, and an initrd with one static program."""

from __future__ import annotations

import platform
import re
import shutil
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

import psutil
from builder import cpio

from launcher import host
from tests.vm.driver import Driver

SOURCE: Final = Path(__file__).with_name("floor.c")
WORD: Final = b"wherry-floor"
GUARD: Final = 300  # seconds, against a hang


def compiler(arch: str) -> str | None:
    """One that makes programs for such a guest: this computer's own when it is a Linux of that architecture, or a cross one."""
    triplet = {"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}[arch]
    own = platform.system() == "Linux" and arch == host.native_arch()
    return shutil.which("gcc") if own and shutil.which("gcc") else shutil.which(triplet)


def initrd(folder: Path, compile_with: str = "gcc") -> Path:
    """Uncompressed: unpacking is no work of ours."""
    program, target = folder / "floor", folder / "floor.cpio"
    subprocess.run([compile_with, "-static", "-Os", "-s", "-Wall", "-Werror", "-o", program, SOURCE], check=True)
    entries = [
        cpio.folder("dev"),
        cpio.Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        cpio.file("init", program.read_bytes(), 0o755),
    ]
    target.write_bytes(cpio.archive(entries, 0))
    return target


def command_of(driver: Driver) -> list[str]:
    """The words with which the keeper started QEMU."""
    [qemu] = [found for found in driver.processes() if found.name().startswith("qemu-system")]
    return qemu.cmdline()


def changed(words: Sequence[str], initrd_file: Path, *, rest: bool = False) -> list[str]:
    """The same with that initrd, and without the channels that the keeper handed over: the console is standard output."""
    found = list(words)
    found[found.index("-initrd") + 1] = str(initrd_file)
    if rest:
        found[found.index("-append") + 1] += " rest"
    for number, word in enumerate(found):
        if re.match(r"socket,id=(qmp|serial),fd=", word):
            found[number] = "stdio,id=serial,signal=off" if "id=serial" in word else "null,id=qmp"
    return found


class Floor:
    """Of a machine that runs now; it can be started as soon as that has stopped, since both have the same disk."""

    def __init__(self, driver: Driver, compile_with: str) -> None:
        self._words = command_of(driver)
        self._place = driver.path / "home" / "machines" / driver.name
        self._initrd = initrd(driver.path, compile_with)

    @classmethod
    def of(cls, driver: Driver) -> Self | None:
        """None where nothing compiles for the guest."""
        found = compiler(driver.status()["arch"])
        if found is None:
            print("no floor: there is no compiler for the guest here", flush=True)
        return cls(driver, found) if found else None

    @contextmanager
    def _run(self, *, rest: bool = False) -> Iterator[subprocess.Popen[bytes]]:
        with ExitStack() as stack:
            here, there = socket.socketpair()
            stack.callback(here.close)
            words = changed(self._words, self._initrd, rest=rest)
            process = stack.enter_context(
                subprocess.Popen(words, cwd=self._place, stdin=there.fileno(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            )
            there.close()
            stack.callback(process.kill)
            guard = threading.Timer(GUARD, process.kill)
            guard.start()
            stack.callback(guard.cancel)
            yield process

    def start(self) -> tuple[float, float]:
        """Seconds until the program spoke, and from then until the power was off and QEMU had ended."""
        began = time.perf_counter()
        with self._run() as process:
            _spoken(process)
            spoke = time.perf_counter()
            process.wait()
            return spoke - began, time.perf_counter() - spoke

    @contextmanager
    def at_rest(self) -> Iterator[psutil.Process]:
        """QEMU's process while its guest does nothing at all."""
        with self._run(rest=True) as process:
            _spoken(process)
            yield psutil.Process(process.pid)


def _spoken(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    said = b""
    for line in process.stdout:
        said += line
        if WORD in line:
            return
    raise AssertionError(f"the floor's guest said nothing: {said[-2000:].decode(errors='replace')}")
