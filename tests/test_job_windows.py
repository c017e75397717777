"""A terminal's job that takes programs along."""

from __future__ import annotations

import ctypes
import sys

import pytest

from launcher import host, proc
from launcher.host import _job_windows
from launcher.machine import doctor_host

# In a job of its own, with these limits, as a terminal has its programs.
_INSIDE = """
import ctypes, sys
from ctypes import wintypes
from launcher import host
from launcher.host import _job_windows
k = ctypes.WinDLL("kernel32", use_last_error=True)
k.CreateJobObjectW.restype = k.GetCurrentProcess.restype = wintypes.HANDLE
job = wintypes.HANDLE(k.CreateJobObjectW(None, None))
limits = _job_windows.Limits(flags=int(sys.argv[1], 16))
assert k.SetInformationJobObject(job, 9, ctypes.byref(limits), ctypes.sizeof(limits)), ctypes.get_last_error()
assert k.AssignProcessToJobObject(job, wintypes.HANDLE(k.GetCurrentProcess())), ctypes.get_last_error()
print(_job_windows.limits(), host.current().tied(), flush=True)
"""


@pytest.mark.parametrize(("flags", "tied"), [(0x2000, True), (0x2800, False), (0x3000, False), (0x0, False), (0x2008, True)])
def test_limits_that_let_nobody_go(flags: int, tied: bool) -> None:
    assert _job_windows.keeps(flags) is tied


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="its size on 64 bits")
def test_the_structure_has_the_systems_size() -> None:
    assert ctypes.sizeof(_job_windows.Limits) == 144


@pytest.mark.skipif(host.current().NAME != "windows", reason="jobs are of Windows")
@pytest.mark.parametrize(("flags", "tied"), [("2000", "True"), ("2800", "False")])
def test_a_real_job(flags: str, tied: str) -> None:
    """Wine takes the question, checks its size, and tells no limits."""
    found = proc.run([sys.executable, "-c", _INSIDE, flags], timeout=60).strip()
    assert found in (f"{int(flags, 16)} {tied}", "0 False")


def test_the_doctor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(doctor_host.terminal()) == []
    monkeypatch.setattr(host.current(), "tied_options", host.current().detach_options)  # as where there are jobs
    assert list(doctor_host.terminal()) == []
    # Not our own job tells, but that of a process which was cut loose.
    there = "host.current().tied = lambda: True"
    monkeypatch.setattr(host.current(), "tied", lambda: False)
    monkeypatch.setattr(doctor_host, "_ASK_TIED", doctor_host._ASK_TIED.replace("print", f"{there}\nprint"))
    monkeypatch.setattr(host.current(), "no_terminal", lambda: "this window is a pipe: put winpty before the command")
    one, two = doctor_host.terminal()
    assert one.status == two.status == "warning"
    assert "lets no program outlive it" in one.text and two.step == "put winpty before the command"
