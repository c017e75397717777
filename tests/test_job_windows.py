"""A terminal's job that takes programs along."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from launcher import host, proc
from launcher.host import _job_windows
from launcher.machine import doctor_host

# In jobs of its own with these limits, the outermost first, as a terminal and a launcher have their programs: what it tells
# itself, what a program tells that was cut loose from it, and whether that was refused.
_INSIDE = """
import ctypes, sys
from ctypes import wintypes
from launcher import host, proc
from launcher.host import _job_windows
k = ctypes.WinDLL("kernel32", use_last_error=True)
k.CreateJobObjectW.restype = k.GetCurrentProcess.restype = wintypes.HANDLE
for flags in sys.argv[1:]:
    job = wintypes.HANDLE(k.CreateJobObjectW(None, None))
    limits = _job_windows.Limits(flags=int(flags, 16))
    assert k.SetInformationJobObject(job, 9, ctypes.byref(limits), ctypes.sizeof(limits)), ctypes.get_last_error()
    assert k.AssignProcessToJobObject(job, wintypes.HANDLE(k.GetCurrentProcess())), ctypes.get_last_error()
system, refused = host.current(), []
tell = "from launcher.host import _job_windows as j; print(j.limits(), j.tied())"
print(_job_windows.limits(), system.tied(), flush=True)
child = proc.spawn([sys.executable, "-c", tell], stdout=proc.PIPE, detach=system.detach_options(), tied=system.tied_options(),
                   on_tied=lambda: refused.append(1))
print(child.communicate()[0].decode().strip(), bool(refused))
"""


def wine() -> bool:
    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")  # type: ignore[attr-defined,unused-ignore]


def told(flags: int | None) -> str:
    """Of the innermost job's limits, None for no job. Wine takes the question, checks its size, and tells no limits."""
    seen = 0 if flags and wine() else flags
    return f"{seen} {_job_windows.keeps(seen or 0)}"


@pytest.mark.parametrize(("flags", "tied"), [(0x2000, True), (0x2800, False), (0x3000, False), (0x0, False), (0x2008, True)])
def test_limits_that_let_nobody_go(flags: int, tied: bool) -> None:
    assert _job_windows.keeps(flags) is tied


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="its size on 64 bits")
def test_the_structure_has_the_systems_size() -> None:
    assert ctypes.sizeof(_job_windows.Limits) == 144


@pytest.mark.skipif(host.current().NAME != "windows", reason="jobs are of Windows")
@pytest.mark.parametrize(
    ("jobs", "loose", "refused"),
    [
        ([0x2000], 0x2000, True),  # a terminal's
        ([0x2800], None, False),  # a launcher's
        ([0x3000], None, False),
        ([0x2000, 0x2800], 0x2000, False),  # that one in a terminal's: no error tells that the outer keeps what breaks away
        ([0x2800, 0x2800], None, False),
        ([0x2800, 0x2000], 0x2000, True),
    ],
)
def test_real_jobs(jobs: list[int], loose: int | None, refused: bool) -> None:
    """Under Wine it can fail by who is in a job at all, and who was refused."""
    if _job_windows.limits() is not None:
        pytest.skip("these tests run in a job themselves")
    found = proc.run([sys.executable, "-c", _INSIDE, *map(hex, jobs)], timeout=60).splitlines()
    assert found == [told(jobs[-1]), f"{told(loose)} {refused}"]


@pytest.mark.parametrize(
    ("ours", "around", "yes"),
    [
        (None, 0x2000, False), (0x2000, 0, True), (0x0, 0x2000, False),  # none is asked
        (0x3800, 0x2000, True), (0x2800, 0x0, False), (0x3000, 0x2800, False), (0x3000, "x", False),
    ],
)  # fmt: skip
def test_a_launchers_job_hides_the_terminals(
    monkeypatch: pytest.MonkeyPatch, ours: int | None, around: int | str, yes: bool
) -> None:
    """wherry.exe, pip's launchers and venv's each have one, which lets go; so a program that broke away is asked."""
    tell = _job_windows._TELL.replace("print(", f"_job_windows.limits = lambda: {around!r}\nprint(")
    monkeypatch.setattr(_job_windows, "_TELL", tell)
    monkeypatch.setattr(_job_windows, "limits", lambda: ours)
    if host.current().NAME != "windows":
        monkeypatch.setattr(_job_windows, "_DETACHED", 0)
        monkeypatch.setattr(_job_windows, "_BREAKAWAY", 0)
    assert _job_windows.tied() is yes
    monkeypatch.setattr(sys, "_base_executable", str(Path(sys.prefix, "none")))
    assert _job_windows.tied() is (yes and ours == 0x2000)


def test_the_doctor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(doctor_host.terminal()) == []
    monkeypatch.setattr(host.current(), "tied", lambda: True)
    monkeypatch.setattr(host.current(), "no_terminal", lambda: "this window is a pipe: put winpty before the command")
    one, two = doctor_host.terminal()
    assert one.status == two.status == "warning"
    assert "lets no program outlive it" in one.text and two.step == "put winpty before the command"
