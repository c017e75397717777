"""The ways to a QEMU on Windows, with a real one: its standard streams, a named pipe that it takes for a file, its lock."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import host
from launcher.errors import LaunchFailed, Refused, WherryError
from launcher.keeper import channels
from launcher.keeper.console import Console
from launcher.qemu.chardevs import channel_args
from launcher.qemu.qmp import Qmp
from tests.fakes import make_machine

REAL = shutil.which("qemu-system-x86_64")
if host.current().NAME != "windows" or REAL is None:
    pytest.skip("these are of Windows, with a QEMU", allow_module_level=True)

# QEMU's loader has it at 0x7c00, where the BIOS begins it from a disk: it prints OK on the serial line, and halts.
SAYS_OK = bytes.fromhex("baf803b04feeb04beeb00aeefaf4").ljust(510, b"\0") + b"\x55\xaa"


class Started:
    """A QEMU with its channels, as the keeper starts one."""

    def __init__(self, stack: contextlib.ExitStack, *words: str) -> None:
        self.directory = make_machine()
        self.lines: list[str] = []
        (self.directory.path / "disk").write_bytes(SAYS_OK)
        qemu = Path(REAL or "")
        with contextlib.ExitStack() as ours:
            ways = channels.made(self.directory, ours)
            common = ["-L", str(qemu.parent / "share/qemu"), "-nodefaults", "-display", "none", "-accel", "tcg", "-m", "16"]
            self.process, monitor, serial = ways.start(qemu, [*common, *words, *channel_args(ways.monitor, ways.serial)])
        stack.callback(self.end)
        self.console = Console(serial, self.directory.serial_log, self.lines.append, lambda: None)
        self.console.start()
        self.qmp = Qmp(monitor)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.qmp.close()
        self.console.close()


def test_the_monitor_the_serial_line_and_the_lock(home: Path) -> None:
    with contextlib.ExitStack() as stack:
        started = Started(stack, "-drive", "file=disk,format=raw", "-S")
        started.qmp.start(lambda _name, _data: None, timeout=60)
        assert started.qmp.execute("query-status")["status"] == "prelaunch"
        assert started.directory.qemu_runs()
        with pytest.raises(Refused, match="runs already"), contextlib.ExitStack() as other:
            channels.made(started.directory, other)
        assert started.lines == []
        started.qmp.execute("cont")
        while not started.lines and started.process.poll() is None:
            started.console.join(0.05)
        assert started.lines == ["OK"]
        started.qmp.execute("quit")
        assert started.process.wait(30) == 0
        started.console.join(30)
        assert not started.directory.qemu_runs()


def test_a_qemu_that_refuses_its_arguments_leaves_nobody_waiting(home: Path) -> None:
    with contextlib.ExitStack() as stack:
        started = Started(stack, "-machine", "no-such-machine")
        with pytest.raises(WherryError):
            started.qmp.start(lambda _name, _data: None, timeout=60)
        assert started.process.wait(30) == 1
        started.console.join(30)
        failure = started.process.failure()
        assert isinstance(failure, LaunchFailed) and "unsupported machine type" in (failure.detail or "")


def test_where_the_terminals_job_lets_nobody_go(home: Path, tmp_path: Path) -> None:
    """As in the terminals of some editors: a job that refuses CREATE_BREAKAWAY_FROM_JOB."""
    program = tmp_path / "in_a_job.py"
    program.write_text(
        "import ctypes, sys\n"
        "from ctypes import wintypes\n"
        "from launcher import host, proc\n"
        "kernel = ctypes.WinDLL('kernel32')\n"
        "kernel.CreateJobObjectW.restype = kernel.GetCurrentProcess.restype = wintypes.HANDLE\n"
        "kernel.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)\n"
        "assert kernel.AssignProcessToJobObject(kernel.CreateJobObjectW(None, None), kernel.GetCurrentProcess())\n"
        "system, told = host.current(), []\n"
        "child = proc.spawn([sys.executable, '-c', 'print(6 * 7)'], stdout=proc.PIPE, detach=system.detach_options(),\n"
        "                   tied=system.tied_options(), on_tied=lambda: told.append('tied'))\n"
        "print(child.stdout.read().decode().strip(), child.wait(), told)\n"
    )
    done = subprocess.run([sys.executable, program], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "42 0 ['tied']", done.stderr
