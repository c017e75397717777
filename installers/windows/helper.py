"""What setup.exe and uninstall.exe have the embedded Python do: python -I helper.py VERB [WORDS].

    path add|remove FOLDER  the user's PATH. NSIS would cut it at 1024 characters
    running                 exit code 3 when a machine runs
    stop                    stops all machines, cleanly
    doormen end FILE        ends those that wait since login (wherry autostart) on this Python, and notes them in FILE
    doormen start FILE      starts them again, on the Python that is there now
    leave                   wherry uninstall --keep: contexts and links are taken back, machines stay
    delete                  wherry uninstall --yes: the machines go too
    import FOLDER           the ISOs of the full edition

Exit code 0: done. Only Python's own modules are used, and psutil, on Windows; what is decided here is tested everywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WHERRY = HERE.parent / "bin" / "wherry.exe"
PYTHON = HERE.parent / "python"
DOORMAN = ("-m", "launcher.machine.doorman")
ENDS_WITHIN = 10.0  # seconds
RUNS = 3
AT_REST = ("stopped", "suspended", "broken", "newer")


def added(path: str, folder: str) -> str:
    """PATH with the folder at its end, unless it has it already; nothing else of it changes."""
    if any(_same(part, folder) for part in path.split(";")):
        return path
    return f"{path.rstrip(';')};{folder}" if path.strip(";") else folder


def removed(path: str, folder: str) -> str:
    """PATH without the folder, however it is written; nothing else of it changes."""
    return ";".join(part for part in path.split(";") if not _same(part, folder))


def _same(one: str, other: str) -> bool:
    return one.strip().strip('"').rstrip("\\").casefold() == other.rstrip("\\").casefold()


def change_path(verb: str, folder: str) -> None:
    """In the registry, then every program that shows folders is told, so that new terminals have it."""
    winreg: Any = importlib.import_module("winreg")
    with winreg.CreateKeyEx(winreg.HKEY_CURRENT_USER, "Environment", 0, winreg.KEY_READ | winreg.KEY_WRITE) as key:
        try:
            before, kind = winreg.QueryValueEx(key, "Path")
        except FileNotFoundError:
            before, kind = "", winreg.REG_EXPAND_SZ
        if kind not in (winreg.REG_SZ, winreg.REG_EXPAND_SZ):
            raise SystemExit("the user's Path in the registry is no text: it is left as it is")
        after = added(before, folder) if verb == "add" else removed(before, folder)
        if after == before:
            return
        if after:
            winreg.SetValueEx(key, "Path", 0, kind, after)
        else:
            winreg.DeleteValue(key, "Path")
    _tell_all()


def _tell_all() -> None:
    windows: Any = ctypes.windll  # type: ignore[attr-defined,unused-ignore]
    everybody, settings, give_up_if_hung, milliseconds = 0xFFFF, 0x001A, 0x0002, 1000
    windows.user32.SendMessageTimeoutW(everybody, settings, None, "Environment", give_up_if_hung, milliseconds, None)


def wherry(*words: str) -> subprocess.CompletedProcess[str]:
    """Windows shows no console for it."""
    flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    return subprocess.run(
        [WHERRY, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8", errors="replace",
        check=False, creationflags=flags,
    )  # fmt: skip


def machines() -> list[dict[str, str]]:
    """All of them, as `wherry list` tells. Raises SystemExit with its words."""
    done = wherry("list", "--json")
    try:
        found = json.loads(done.stdout)["data"]
    except (ValueError, KeyError):
        found = None
    if not isinstance(found, list):
        raise SystemExit(f"wherry list: {done.stderr or done.stdout}")
    return found


def live() -> list[str]:
    """The names of those that are not at rest."""
    return [machine["name"] for machine in machines() if machine["status"] not in AT_REST]


def doormen() -> list[Any]:
    """The processes of this user that run on this installation's Python, which could not be replaced while they do."""
    psutil: Any = importlib.import_module("psutil")
    ours, found = psutil.Process().username(), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # gone meanwhile, or another's
            words = process.cmdline()
            is_one = DOORMAN in itertools.pairwise(words)
            if is_one and _same(os.fspath(Path(words[0]).parent), os.fspath(PYTHON)) and process.username() == ours:
                found.append(process)
    return found


def end_doormen(noted: Path) -> None:
    """No machine ends with them."""
    words = []
    for process in doormen():
        with contextlib.suppress(importlib.import_module("psutil").Error, OSError):
            words.append(process.cmdline())
            process.terminate()
            process.wait(ENDS_WITHIN)  # one that stays is noted too: the folder is not replaced then
    noted.write_text(json.dumps(words), encoding="utf-8")


def start_doormen(noted: Path) -> None:
    """As the login does: in the user's folder, without a window, and outliving us."""
    detached = 0x00000008 | 0x00000200  # DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP
    flags = detached if os.name == "nt" else 0
    nothing = subprocess.DEVNULL
    running = [process.cmdline() for process in doormen()]
    for words in json.loads(noted.read_text(encoding="utf-8")):
        if words not in running:
            one = subprocess.Popen(words, cwd=Path.home(), stdin=nothing, stdout=nothing, stderr=nothing, creationflags=flags)
            one.returncode = 0  # it outlives us; no warning about a child that was not waited for


def do(*words: str) -> None:
    """Raises SystemExit with what wherry says when it fails."""
    done = wherry(*words)
    if done.returncode:
        raise SystemExit(f"wherry {' '.join(words)}: {done.stderr or done.stdout}")


def main(words: Sequence[str]) -> int:
    if words[0] == "path":
        change_path(words[1], words[2])
    elif words[0] == "running":
        return RUNS if live() else 0
    elif words[0] == "stop":
        for name in live():
            do("stop", name)
    elif words[0] == "doormen":
        {"end": end_doormen, "start": start_doormen}[words[1]](Path(words[2]))
    elif words[0] in ("leave", "delete"):
        do("uninstall", "--keep" if words[0] == "leave" else "--yes")
    elif words[0] == "import":
        for iso in sorted(Path(words[1]).glob("*.iso")):
            do("iso", "import", os.fspath(iso))
    else:
        raise SystemExit(f"helper.py: {words[0]}?")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
