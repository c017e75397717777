"""Shell code that sets and removes environment variables, and which shell it is for."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from launcher import host

SHELLS: Final = ("bash", "zsh", "fish", "powershell", "cmd")
_NAMES: Final = {"sh": "bash", "dash": "bash", "ksh": "bash", "ash": "bash", "busybox": "bash", "pwsh": "powershell"}
_DEPTH: Final = 6  # a launcher or two may stand between the shell and us

_EVALUATE: Final = {
    "fish": "# {words} | source",
    "powershell": "# {words} | Invoke-Expression",
    "cmd": "REM FOR /F \"tokens=*\" %i IN ('{words}') DO @%i",
}


def code(shell: str, values: Mapping[str, str | None], words: str) -> str:
    """Lines for the shell: None removes a variable. The last line is a comment that tells how `words` are used."""
    lines = [_unset(shell, name) if value is None else _set(shell, name, value) for name, value in values.items()]
    return "\n".join([*lines, _EVALUATE.get(shell, '# eval "$({words})"').format(words=words)])


def _set(shell: str, name: str, value: str) -> str:
    if shell == "fish":
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {name} '{quoted}';"
    if shell == "powershell":
        quoted = value.replace("'", "''")
        return f"$Env:{name} = '{quoted}'"
    if shell == "cmd":
        return f"SET {name}={value}"
    return f"export {name}={shlex.quote(value)}"


def _unset(shell: str, name: str) -> str:
    if shell == "fish":
        return f"set -e {name};"
    if shell == "powershell":
        return f"Remove-Item Env:{name} -ErrorAction SilentlyContinue"
    return f"SET {name}=" if shell == "cmd" else f"unset {name}"


def guess() -> str:
    """The shell that we were started from."""
    return choose([*_ancestors(), os.environ.get("SHELL", "")])


def choose(programs: Iterable[str]) -> str:
    """The first of the programs that is a shell, as we call it."""
    for program in programs:
        name = Path(program.lstrip("-").replace("\\", "/")).name.lower().removesuffix(".exe")
        name = _NAMES.get(name, name)
        if name in SHELLS:
            return name
    return host.current().SHELL


def _ancestors() -> list[str]:
    import psutil

    try:
        return [process.name() for process in psutil.Process().parents()[:_DEPTH]]
    except (psutil.Error, OSError):
        return []
