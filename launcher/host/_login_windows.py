"""Windows: a value of the user's Run key, which needs no administrator."""

from __future__ import annotations

import contextlib
import re
from pathlib import PureWindowsPath
from subprocess import list2cmdline
from typing import Any, Final

from launcher.errors import WherryError
from launcher.host.login import LoginItem

# Backslashes with the mark that follows them; a blank; anything else.
_PARTS: Final = re.compile(r'(\\*)(")|(\\+)|([ \t])|([^\\" \t]+)')
_ENDS_WITHIN: Final = 10.0
_LONGEST: Final = 260  # learn.microsoft.com, "Run and RunOnce Registry Keys"
_KEY: Final = r"Software\Microsoft\Windows\CurrentVersion\Run"


def value(item: LoginItem) -> str:
    """The command line, by the rules of the C runtime. pythonw: a program of the console would open a window."""
    program, *rest = item.argv
    path = PureWindowsPath(program)
    if path.name.lower() == "python.exe":
        program = str(path.with_name("pythonw.exe"))
    return list2cmdline([program, *rest])


def enable(item: LoginItem) -> str:
    line = value(item)
    if len(line) > _LONGEST:
        raise WherryError(
            f"{line} is too long for Windows' Run key ({_LONGEST} characters).", hint="Install wherry in a shorter path."
        )
    winreg = _registry()
    with winreg.CreateKeyEx(winreg.HKEY_CURRENT_USER, _KEY, 0, winreg.KEY_SET_VALUE) as key:
        winreg.SetValueEx(key, item.label, 0, winreg.REG_SZ, line)
    return rf"HKCU\{_KEY}\{item.label}"


def read(label: str) -> tuple[str, ...] | None:
    winreg = _registry()
    try:
        with winreg.OpenKey(winreg.HKEY_CURRENT_USER, _KEY) as key:
            return words(str(winreg.QueryValueEx(key, label)[0]))
    except FileNotFoundError:
        return None


def labels(prefix: str) -> list[str]:
    winreg = _registry()
    try:
        with winreg.OpenKey(winreg.HKEY_CURRENT_USER, _KEY) as key:
            names = [str(winreg.EnumValue(key, number)[0]) for number in range(winreg.QueryInfoKey(key)[1])]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name.startswith(prefix))


def disable(label: str, *, end: bool) -> bool:
    winreg = _registry()
    if end and (started := read(label)):
        _end(started)
    try:
        with winreg.OpenKey(winreg.HKEY_CURRENT_USER, _KEY, 0, winreg.KEY_SET_VALUE) as key:
            winreg.DeleteValue(key, label)
    except FileNotFoundError:
        return False
    return True


def _end(words: tuple[str, ...]) -> None:
    """Those programs with these words that are this user's; the first of them, the interpreter, calls itself as it likes."""
    import psutil

    ours = psutil.Process().username()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if tuple(process.cmdline()[1:]) == words[1:] and process.username() == ours:
                process.terminate()
                process.wait(_ENDS_WITHIN)


def _registry() -> Any:
    import winreg

    return winreg


def words(line: str) -> tuple[str, ...]:
    """What `value` wrote, read again by the same rules: a backslash means another thing only before a quotation mark."""
    found: list[str] = []
    word: str | None = None
    quoted = False
    for slashes, mark, bare, blank, letter in _PARTS.findall(line):
        if blank and not quoted:
            found += [] if word is None else [word]
            word = None
            continue
        word = (word or "") + ("\\" * (len(slashes) // 2) if mark else bare) + blank + letter
        if mark and len(slashes) % 2:
            word += mark
        elif mark:
            quoted = not quoted
    return (*found, *([] if word is None else [word]))
