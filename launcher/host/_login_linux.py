"""Linux: a user unit of systemd (systemd.unit(5), systemd.service(5), systemd.exec(5))."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import Final

from launcher import proc
from launcher.errors import Damaged, MissingOnHost, WherryError
from launcher.host.login import LoginItem

_RUNS: Final = Path("/run/systemd/system")  # sd_booted(3)
_TARGET: Final = "default.target"
_WITHIN: Final = 20.0


def unit(item: LoginItem) -> str:
    """KillMode=mixed: at its end only the program itself is told; what it started, it stops in the right order."""
    program, *rest = item.argv  # in whose name alone a $ means itself
    command = " ".join([_quoted(program), *(_quoted(word.replace("$", "$$")) for word in rest)])
    return f"""\
[Unit]
Description={item.what.replace("%", "%%")}

[Service]
Type=exec
ExecStart={command}
Environment={_quoted("PATH=" + item.path)}
KillMode=mixed
TimeoutStopSec={item.end_seconds}

[Install]
WantedBy={_TARGET}
"""


def _quoted(word: str) -> str:
    """systemd.syntax(7), "Quoting"; % begins a specifier there."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _words(command: str) -> tuple[str, ...]:
    program, *rest = (word.replace("%%", "%") for word in shlex.split(command) or [""])
    return (program, *(word.replace("$$", "$") for word in rest))


def enable(item: LoginItem) -> str:
    if not _RUNS.is_dir():
        raise MissingOnHost(
            "this computer is not run by systemd, and nothing of ours would be started at login.",
            hint=f"Have your desktop start this at login: {shlex.join(item.argv)}",
        )
    file, wanted = _file(item.label), _wanted(item.label)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_name(f".{file.name}.new")
    written.write_text(unit(item), encoding="utf-8")
    written.replace(file)
    # What `systemctl --user enable` does, which wants a user's manager that answers.
    wanted.unlink(missing_ok=True)
    wanted.symlink_to(f"../{file.name}")
    _tell_manager("daemon-reload")
    return str(file)


def read(label: str) -> tuple[str, ...] | None:
    try:
        text = _file(label).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Damaged(f"{_file(label)} cannot be read: {error}.") from error
    command = next((line.removeprefix("ExecStart=") for line in text.splitlines() if line.startswith("ExecStart=")), "")
    return _words(command) if os.path.lexists(_wanted(label)) else None


def labels(prefix: str) -> list[str]:
    return sorted(file.stem for file in (_folder() / f"{_TARGET}.wants").glob(f"{prefix}*.service"))


def disable(label: str, *, end: bool) -> bool:
    there = os.path.lexists(_file(label))
    if end and there:
        _tell_manager("stop", f"{label}.service")
    _wanted(label).unlink(missing_ok=True)
    _file(label).unlink(missing_ok=True)
    if there:
        _tell_manager("daemon-reload")
    return there


def _tell_manager(*words: str) -> None:
    """It reads its folder at the next login in any case."""
    with contextlib.suppress(WherryError):
        proc.run(["systemctl", "--user", "--no-ask-password", *words], timeout=_WITHIN)


def _folder() -> Path:
    config = os.environ.get("XDG_CONFIG_HOME") or ""
    return (Path(config) if Path(config).is_absolute() else Path.home() / ".config") / "systemd" / "user"


def _file(label: str) -> Path:
    return _folder() / f"{label}.service"


def _wanted(label: str) -> Path:
    return _folder() / f"{_TARGET}.wants" / f"{label}.service"
