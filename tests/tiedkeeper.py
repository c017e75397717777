"""A keeper that a terminal's job takes along: `python -m tests.tiedkeeper NAME [ACTION]`."""

from __future__ import annotations

import sys

from launcher import host
from launcher.keeper import __main__

if __name__ == "__main__":
    setattr(host.current(), "tied", lambda: True)  # noqa: B010  a module is no Protocol to mypy
    sys.exit(__main__.main())
