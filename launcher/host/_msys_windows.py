"""Git Bash and other shells of MSYS2 and Cygwin, seen from a program of Windows.

Their terminal, mintty, is a pair of pipes to us, known by their names alone (winsup/cygwin/fhandler/pty.cc). And the shell
rewrites words that look like paths of its own: `-w /code` becomes `-w C:/Program Files/Git/code`, and `-v /c/x:/code` a list
with a semicolon (msys2.org, "Filesystem Paths").
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from ctypes import wintypes
from typing import Any, Final

with contextlib.suppress(ImportError):  # elsewhere this module is only read
    import msvcrt

_NAME_INFO: Final = 2  # FileNameInfo
_ROOM: Final = 1024
_PIPE: Final = re.compile(r"\\(?:msys|cygwin)-[0-9a-f]+-pty\d+-(?:from|to)-master(?:-nat)?")
# Where such a shell usually is; of another place EXEPATH tells. Any folder `git` would be many a user's own.
_ROOTS: Final = (r"[a-z]:/program files(?: \(x86\))?/git", r"[a-z]:/msys(?:32|64)", r"[a-z]:/cygwin(?:64)?")
_BIN: Final = re.compile(r"/(?:usr/|mingw\d\d/)?(?:bin|cmd)/?$")
_VOLUME: Final = ("-v", "--volume")
_LIST: Final = re.compile(r"^[^;]*[A-Za-z]:\\[^;]*;[A-Za-z]:\\")


def no_terminal() -> str:
    for descriptor in (0, 1):
        try:
            handle = msvcrt.get_osfhandle(descriptor)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            continue
        if is_mintty(handle):
            return "this window is a pipe to programs of Windows: put winpty before the command, or use Windows Terminal"
    return ""


def rewritten_words(words: Sequence[str]) -> str:
    word = rewritten(words, os.environ)
    remedy = "MSYS_NO_PATHCONV=1 before the command leaves it as it was typed"
    return f"{word} is what this shell has made of a path: {remedy}" if word else ""


def rewritten(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """The first word that such a shell has made another path of; "" for none."""
    if "MSYSTEM" not in environment or "MSYS_NO_PATHCONV" in environment or environment.get("MSYS2_ARG_CONV_EXCL") == "*":
        return ""
    roots = list(_ROOTS)
    if folder := environment.get("EXEPATH", "").replace("\\", "/").lower():
        roots.append(re.escape(_BIN.sub("", folder)))
    inside = re.compile(rf"(?:^|[=:;,])(?:{'|'.join(roots)})(?:/|$)")

    def strange(before: str, word: str) -> bool:
        return _is_list(before, word) or inside.search(word.replace("\\", "/").lower()) is not None

    return next((word for before, word in itertools.pairwise(["", *words]) if strange(before, word)), "")


def _is_list(before: str, word: str) -> bool:
    """Whether a volume, by this word or with the one before, is a list of folders; any other value may well be one."""
    flag, _, value = word.partition("=")
    given = word if before in _VOLUME else value if flag in _VOLUME else ""
    return _LIST.match(given) is not None


def is_mintty(handle: int, kernel32: Any = None) -> bool:
    """Whether the stream is one of the pipes that stand for a terminal."""
    library: Any = kernel32 or ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    found = ctypes.create_string_buffer(4 + _ROOM)  # FILE_NAME_INFO: bytes of the name, the name
    if not library.GetFileInformationByHandleEx(wintypes.HANDLE(handle), _NAME_INFO, found, len(found)):
        return False
    size = int.from_bytes(found.raw[:4], "little")
    return _PIPE.fullmatch(found.raw[4 : 4 + size].decode("utf-16-le", "replace")) is not None
