"""The size of the terminal, on every system."""

from __future__ import annotations

import os


def size() -> tuple[int, int]:
    """Rows and columns of the first standard stream that is a terminal; 24 and 80 without one."""
    for descriptor in (1, 0, 2):
        try:
            columns, rows = os.get_terminal_size(descriptor)
        except (OSError, ValueError):
            continue
        if rows and columns:
            return rows, columns
    return 24, 80
