"""The job that a terminal has put its programs into: some end with the terminal, and let nobody go. From winnt.h.

Seen with the terminals of VS Code and of JetBrains, and with build services. Jobs are nested: that of the launcher of a Python
(wherry.exe, pip's) is within the terminal's. A process that breaks away leaves one after the other until one does not let it
go, and no error tells that (learn.microsoft.com, "Nested Jobs"); only where the innermost refuses does `proc.spawn` hear of it.
This looks at the innermost, which is the terminal's for a process that was to break away.
"""

from __future__ import annotations

import ctypes
from ctypes import wintypes
from typing import Any, Final

_LIMITS: Final = 9  # JobObjectExtendedLimitInformation
_LETS_GO: Final = 0x800 | 0x1000  # JOB_OBJECT_LIMIT_BREAKAWAY_OK, _SILENT_BREAKAWAY_OK
_ENDS: Final = 0x2000  # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE


class Limits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("times", ctypes.c_int64 * 2), ("flags", ctypes.c_uint32), ("working_set", ctypes.c_size_t * 2),
        ("processes", ctypes.c_uint32), ("affinity", ctypes.c_size_t), ("classes", ctypes.c_uint32 * 2),
        ("counters", ctypes.c_uint64 * 6), ("memory", ctypes.c_size_t * 4),
    )  # fmt: skip


def tied() -> bool:
    """Of a process that was started to break away; of another one it may tell of its launcher's job."""
    return keeps(limits() or 0)


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
