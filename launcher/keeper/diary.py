"""The log file of a process that nobody watches: bounded, the older half beside it."""

from __future__ import annotations

import logging
import logging.handlers
import threading
from pathlib import Path
from typing import Final

_LOG_BYTES: Final = 1 << 20


class Released(logging.handlers.RotatingFileHandler):
    """Open for the length of a record only: on Windows an open file keeps its folder from being removed."""

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        self.acquire()
        try:
            if self.stream is not None:
                self.stream.close()
                self.stream = None
        finally:
            self.release()


def keep(path: Path, *, released: bool = False) -> None:
    """Have all that this process logs written there; the file gets the modes of the umask. `released`: it is not held open.

    Raises OSError, when `released` never.
    """
    kind = Released if released else logging.handlers.RotatingFileHandler
    handler = kind(path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8", delay=released)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # What paramiko says at ERROR it raises as well, and its tracebacks would fill the log while a machine does not answer.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    # Python's own words go to a descriptor that knows nothing of the log's rotation, or to nobody.
    threading.excepthook = _on_failed_thread


def _on_failed_thread(failed: threading.ExceptHookArgs) -> None:
    name = failed.thread.name if failed.thread is not None else "a thread"
    log = logging.getLogger("wherry")
    log.critical("%s failed", name, exc_info=(failed.exc_type, failed.exc_value or failed.exc_type(), failed.exc_traceback))
