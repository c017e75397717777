"""What starts when the user logs in: a systemd user unit, a launchd agent, a value of Windows' Run key.

The texts are made by plain functions of each module, so that all of them are known on every system.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import NamedTuple, Protocol, cast


class LoginItem(NamedTuple):
    """One program that starts at login, in the foreground, and is told to end at logout."""

    label: str  # [a-z0-9-]
    what: str  # in a few words
    argv: tuple[str, ...]
    path: str  # PATH; Windows gives each program the user's own
    end_seconds: int  # how long its end may take; Windows grants a few seconds whatever is asked for


class LoginModule(Protocol):
    """What `_login_linux`, `_login_macos` and `_login_windows` have."""

    def enable(self, item: LoginItem) -> str:
        """Have it start from the next login on, in place of one with its label; where that is written down.

        Raises MissingOnHost where nothing would start it.
        """

    def read(self, label: str) -> tuple[str, ...] | None:
        """The words that start at login; None for none. Raises Damaged for what is not as it was written."""

    def labels(self, prefix: str) -> list[str]:
        """Those that begin with that and start at login."""

    def disable(self, label: str, *, end: bool) -> bool:
        """It starts no more; whether it did. `end`: should it run now, it is told to end."""


@cache
def login() -> LoginModule:
    """The module of the system that we run on."""
    if sys.platform == "win32":
        from launcher.host import _login_windows as module
    elif sys.platform == "darwin":
        from launcher.host import _login_macos as module
    else:
        from launcher.host import _login_linux as module
    return cast(LoginModule, module)
