"""macOS: an agent of launchd (launchd.plist(5)); what it starts stays in the foreground."""

from __future__ import annotations

import contextlib
import os
import plistlib
from pathlib import Path
from typing import Final

from launcher import proc
from launcher.errors import Damaged, WherryError
from launcher.host.login import LoginItem

_WITHIN: Final = 20.0


def plist(item: LoginItem, log: str) -> bytes:
    """Interactive: else launchd slows it, and what it starts, as background work."""
    values = {
        "Label": item.label,
        "ProgramArguments": list(item.argv),
        "EnvironmentVariables": {"PATH": item.path},
        "RunAtLoad": True,
        "KeepAlive": False,
        "ProcessType": "Interactive",
        "ExitTimeOut": item.end_seconds,
        "StandardErrorPath": log,
    }
    return plistlib.dumps(values, sort_keys=False)


def enable(item: LoginItem) -> str:
    file = _file(item.label)
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_name(f".{file.name}.new")
    written.write_bytes(plist(item, str(Path.home() / "Library" / "Logs" / f"{item.label}.log")))
    written.replace(file)
    return str(file)


def read(label: str) -> tuple[str, ...] | None:
    file = _file(label)
    try:
        return tuple(str(word) for word in plistlib.loads(file.read_bytes())["ProgramArguments"])
    except FileNotFoundError:
        return None
    except Exception as error:  # of plistlib: ExpatError, ValueError, KeyError, as it comes
        raise Damaged(f"{file} cannot be read: {error}.") from error


def labels(prefix: str) -> list[str]:
    return sorted(file.stem for file in _folder().glob(f"{prefix}*.plist"))


def disable(label: str, *, end: bool) -> bool:
    file = _file(label)
    there = os.path.lexists(file)
    file.unlink(missing_ok=True)
    if end and there:
        with contextlib.suppress(WherryError):  # it is not loaded
            proc.run(["launchctl", "bootout", f"gui/{os.getuid()}/{label}"], timeout=_WITHIN)
    return there


def _folder() -> Path:
    return Path.home() / "Library" / "LaunchAgents"


def _file(label: str) -> Path:
    return _folder() / f"{label}.plist"
