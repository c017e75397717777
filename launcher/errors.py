"""The one error family.

    WherryError                 1    failed
    ├── LaunchFailed            1    QEMU ended or the guest never spoke; carries the command and the log's tail
    ├── EngineFailed            1    the Docker Engine answered with an error
    ├── Damaged                 1    a file of the machine is lost or cannot be read; `wherry repair` is the next step
    ├── Usage                   2    the words of the call are off
    ├── NotRunning              3    the machine is not running, or there is none of that name
    │   └── NoSuchMachine       3
    ├── MissingOnHost           4    QEMU or another program is not on this computer
    ├── NoProgress              5    a stage did not come
    ├── Refused                 6    not done, to protect data
    ├── IsoProblem              7    the ISO could not be had or does not verify
    ├── ConnectionLost        255    the connection to the machine ended; proxied commands make it 125
    └── Interrupted           130    Ctrl-C

Raised anywhere, shown in one place (`launcher.cli`). A message says what failed and why; the hint is the one next step.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import ClassVar, Final


class WherryError(Exception):
    """What failed and why (`message`), one next step (`hint`), and lines that show the cause (`detail`)."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "failed"

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def to_json(self) -> dict[str, object]:
        """The form that crosses the control socket and that `--json` prints."""
        return {
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
            "detail": self.detail,
            "exit_code": self.exit_code,
        }


class LaunchFailed(WherryError):
    kind = "launch-failed"


class EngineFailed(WherryError):
    """`status` is that of the engine's answer, 0 when it did not come from there at first hand."""

    kind = "engine"

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None, status: int = 0) -> None:
        super().__init__(message, hint=hint, detail=detail)
        self.status = status


class Damaged(WherryError):
    kind = "damaged"


class Usage(WherryError):
    exit_code = 2
    kind = "usage"


class NotRunning(WherryError):
    exit_code = 3
    kind = "not-running"


class NoSuchMachine(NotRunning):
    kind = "no-such-machine"


class MissingOnHost(WherryError):
    exit_code = 4
    kind = "missing"


class NoProgress(WherryError):
    exit_code = 5
    kind = "no-progress"


class Refused(WherryError):
    exit_code = 6
    kind = "refused"


class IsoProblem(WherryError):
    exit_code = 7
    kind = "iso"


class ConnectionLost(WherryError):
    exit_code = 255
    kind = "connection-lost"


class Interrupted(WherryError):
    exit_code = 130
    kind = "interrupted"


_KINDS: dict[str, type[WherryError]] = {
    error.kind: error
    for error in (
        WherryError, LaunchFailed, EngineFailed, Damaged, Usage, NotRunning, NoSuchMachine, MissingOnHost, NoProgress, Refused,
        IsoProblem, ConnectionLost, Interrupted,
    )
}  # fmt: skip


def from_json(data: dict[str, object]) -> WherryError:
    """The error that the other side of the control socket raised; an unknown kind is a plain WherryError."""

    def text(key: str) -> str | None:
        value = data.get(key)
        return value if isinstance(value, str) else None

    error = _KINDS.get(text("kind") or "", WherryError)
    return error(text("message") or "unknown error", hint=text("hint"), detail=text("detail"))


# winerror.h: who keeps a program from being started.
_BLOCKED: Final = {
    1260: ("a policy of this computer blocks it", "Whoever looks after this computer can allow that file (AppLocker)."),
    4551: ("a policy of this computer blocks it", "Whoever looks after this computer can allow that file (App Control)."),
    225: (
        "the virus scanner takes it for harmful",
        "Have the virus scanner allow that file, or give it back from its quarantine.",
    ),
    226: ("the virus scanner took it away", "Have the virus scanner give that file back from its quarantine, and allow it."),
    740: ("it wants an administrator", 'Remove "Run as administrator" from the compatibility settings of that file.'),
    193: ("it is no program for this computer", None),
    216: ("it is a program for another processor", None),
}
# ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION
_HELD: Final = (32, 33)
_OTHER_PROCESSOR: Final = (errno.ENOEXEC, getattr(errno, "EBADARCH", errno.ENOEXEC))


def of_start(program: str, error: OSError) -> MissingOnHost:
    """Why the system does not start a program that is there, with its file."""
    if found := _BLOCKED.get(getattr(error, "winerror", None) or 0):
        why, hint = found
    elif error.errno in _OTHER_PROCESSOR:
        why, hint = "it is no program for this computer", None
    elif error.errno in _CLOSED:
        why, hint = "it is closed to you, or its disk lets no program run", "ls -l shows its rights, mount a disk with noexec."
        hint = None if hasattr(error, "winerror") else hint
    else:
        why, hint = error.strerror or str(error), None
    return MissingOnHost(f"{program} cannot be started: {why}.", hint=hint)


_FULL: Final = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_CLOSED: Final = frozenset({errno.EACCES, errno.EPERM})


def of_system(error: OSError) -> WherryError:
    """A refusal of the operating system in words for the user."""
    place = _place(error)
    if error.errno in _FULL:
        return WherryError(
            f"there is no space left{f' in {_folder(place)}' if place else ''}.", hint="Free some, then try again."
        )
    if error.errno == errno.EROFS:
        return WherryError(f"{place or 'a file'} cannot be written: it is read-only.", hint=_ELSEWHERE)
    if getattr(error, "winerror", None) in _HELD:
        return WherryError(f"{place or 'a file'} is in use by another program.", hint="Close that program, then try again.")
    if error.errno in _CLOSED:
        return WherryError(f"{place or 'a file'} is closed to you.", hint=_ELSEWHERE)
    words = error.strerror or str(error)
    return WherryError(f"{place}: {words}." if place else words)


_ELSEWHERE: Final = "WHERRY_HOME says where machines are kept."


def _place(error: OSError) -> str:
    name = error.filename
    if not isinstance(name, str | bytes | Path):
        return ""
    path = Path(name.decode(errors="replace") if isinstance(name, bytes) else name)
    # Temporary names say nothing to a user, and are gone already.
    return str(path.parent if path.name.startswith(".") else path)


def _folder(place: str) -> str:
    path = Path(place)
    return str(path if path.is_dir() else path.parent)
