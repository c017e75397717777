"""Folders that macOS shows a program only with the user's leave (TCC): it asks once, and answers EPERM from then on.

The leave is that of the program that the user sees, for ours the terminal from which wherry was started. A mode or an owner
that forbids something is EACCES, so the two are told apart.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

# In the home: what the system asks about by name (support.apple.com, "Control access to files and folders on Mac").
_ASKED: Final = ("Desktop", "Documents", "Downloads", "Library/Mobile Documents")
_WHERE: Final = (
    'System Settings, "Privacy & Security", "Files and Folders": allow it to the program in which you call wherry, '
    "then: wherry restart"
)


def guarded_folders() -> list[str]:
    return [str(folder) for name in _ASKED if (folder := Path.home() / name).is_dir()]


def withheld(path: str) -> tuple[str, str] | None:
    folder = path if os.path.isdir(path) else os.path.dirname(path)  # noqa: PTH112, PTH120
    try:
        os.scandir(folder).close()
    except OSError as error:
        if error.errno == errno.EPERM:
            return f"macOS keeps {folder} from wherry", _WHERE
    return None
