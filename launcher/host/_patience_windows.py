"""Files that another program has open, which Windows then neither moves nor removes.

A virus scanner and the search index open what was just written, and a program of ours may read it at this moment: each for as
long as that takes. What a person's program has open stays so, and is told after a second.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_TRIES: Final = 20
_EVERY: Final = 0.05
# ERROR_ACCESS_DENIED (as well for what is about to go), _SHARING_VIOLATION, _LOCK_VIOLATION, _DIR_NOT_EMPTY (of a folder whose
# last file is about to go)
_HELD: Final = (5, 32, 33, 145)


def patiently(work: Callable[[], None]) -> None:
    """`work`, again for as long as a second while somebody has a file of it open. Raises OSError."""
    for _ in range(_TRIES):
        try:
            return work()
        except OSError as error:
            if getattr(error, "winerror", None) not in _HELD:
                raise
        time.sleep(_EVERY)
    return work()


def replace(source: Path, target: Path) -> None:
    patiently(lambda: os.replace(source, target))


def rename(source: Path, target: Path) -> None:
    patiently(lambda: os.rename(source, target))


def remove_tree(folder: Path) -> None:
    def work() -> None:
        if os.path.lexists(folder):  # else the try before has removed it to its last file
            shutil.rmtree(folder)

    if not os.path.lexists(folder):
        raise FileNotFoundError(2, os.strerror(2), os.fspath(folder))
    patiently(work)
