"""The job that a terminal has put its programs into: some end with the terminal, and let nobody go. From winnt.h.

Seen with the terminals of VS Code and of JetBrains, and with build services. Jobs are nested: that of a Python's launcher
(wherry.exe, pip's, a virtual environment's) is within the terminal's. A process that breaks away leaves one after the other
until one does not let it go, and no error tells that (learn.microsoft.com, "Nested Jobs"): `proc.spawn` hears only of the
innermost's refusal, and the system tells the limits of that one alone.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes
from pathlib import Path
from typing import Any, Final

_DETACHED: Final = 0x00000008 | 0x00000200  # DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP
_BREAKAWAY: Final = 0x01000000  # CREATE_BREAKAWAY_FROM_JOB: the terminal's job object must not take us along
_LIMITS: Final = 9  # JobObjectExtendedLimitInformation
_LETS_GO: Final = 0x800 | 0x1000  # JOB_OBJECT_LIMIT_BREAKAWAY_OK, _SILENT_BREAKAWAY_OK
_ENDS: Final = 0x2000  # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
_TELL: Final = """
import sys
sys.path.insert(0, sys.argv[1])
from launcher.host import _job_windows
print(_job_windows.limits() or 0)
"""
_TELLS_WITHIN: Final = 20  # seconds


class Limits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("times", ctypes.c_int64 * 2), ("flags", ctypes.c_uint32), ("working_set", ctypes.c_size_t * 2),
        ("processes", ctypes.c_uint32), ("affinity", ctypes.c_size_t), ("classes", ctypes.c_uint32 * 2),
        ("counters", ctypes.c_uint64 * 6), ("memory", ctypes.c_size_t * 4),
    )  # fmt: skip


def detach_options() -> dict[str, Any]:
    return {"creationflags": _DETACHED | _BREAKAWAY, "close_fds": True}


def tied_options() -> dict[str, Any] | None:
    # Of some editors' terminals and of build services: their job refuses the flag, and ends with all that is in it.
    return {"creationflags": _DETACHED, "close_fds": True}


def tied() -> bool:
    found = limits() or 0
    if found & _LETS_GO:
        found = _around()
    return keeps(found)


def _around() -> int:
    """The limits of the job that is around one that lets go: of the innermost that a program finds which broke away. Not by way
    of a virtual environment's python.exe, which has its program in one more."""
    from launcher import proc
    from launcher.errors import WherryError

    program = getattr(sys, "_base_executable", "") or sys.executable
    package = Path(__file__).parent.parent.parent
    try:
        child = proc.spawn(
            [program, "-I", "-S", "-c", _TELL, package], stdout=proc.PIPE, detach=detach_options(), tied=tied_options()
        )
    except WherryError:
        return 0
    try:
        said, _ = child.communicate(timeout=_TELLS_WITHIN)
    except proc.TimeoutExpired:
        child.kill()
        said, _ = child.communicate()
    return int(said) if said.strip().isdigit() else 0


def limits() -> int | None:
    """Those of the job that we are in; None when we are in none, or cannot know."""
    kernel32: Any = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    kernel32.GetCurrentProcess.restype = wintypes.HANDLE
    inside = wintypes.BOOL()
    if not kernel32.IsProcessInJob(wintypes.HANDLE(kernel32.GetCurrentProcess()), None, ctypes.byref(inside)) or not inside:
        return None
    found = Limits()
    if not kernel32.QueryInformationJobObject(None, _LIMITS, ctypes.byref(found), ctypes.sizeof(found), None):
        return None
    return int(found.flags)


def keeps(flags: int) -> bool:
    """Whether a job with these limits takes along what was started in it."""
    return bool(flags & _ENDS) and not flags & _LETS_GO
