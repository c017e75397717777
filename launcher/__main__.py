"""The entry point: tells the proxied verbs, which must start fast, from wherry's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def _have_streams() -> None:
    """Cron and daemons start programs with closed streams; the next file or socket would take their place."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "r" if descriptor == 0 else "w", encoding="utf-8", closefd=False))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. What is imported here is what every call pays for."""
    _have_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    if words in (["--version"], ["-V"]):
        from launcher import __version__

        print(f"wherry {__version__}")
        return 0
    from launcher.cli import words as grammar

    leading = grammar.leading(words)
    if leading.verb in grammar.PROXIED and "_WHERRY_COMPLETE" not in os.environ:
        from launcher.cli import proxy

        return proxy.main(leading)
    from launcher.cli import app

    return app.main(words)


if __name__ == "__main__":
    sys.exit(main())
