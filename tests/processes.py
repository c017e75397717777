"""Processes that a test started, and their end."""

from __future__ import annotations

from collections.abc import Iterable

import psutil


def kill(processes: Iterable[psutil.Process]) -> None:
    """Each at once, and until it is gone; those that ended meanwhile are none."""
    for process in processes:
        try:
            process.kill()
            process.wait(10)
        except psutil.Error:
            continue
