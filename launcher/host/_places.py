"""Where folders of a computer are in the machine: as text, so that each system's way is known on all of them."""

from __future__ import annotations

import re
from typing import Final

_DRIVE: Final = re.compile(r"([A-Za-z]):(?:[\\/]|$)")
_MOUNTED: Final = re.compile(r"/(?:mnt/)?([A-Za-z])(?:/|$)")
# "Naming Files, Paths, and Namespaces" of Microsoft: `:` would name a stream in a file, dots and blanks at the end are dropped,
# and the devices are no files.
_NEVER: Final = re.compile(r'[<>:"|?*\\/\x00-\x1f]|[. ]$')
_DEVICES: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(?:\..*)?", re.IGNORECASE
)
# Links of macOS's root: what is said as /tmp/x is /private/tmp/x.
_PRIVATE: Final = re.compile(r"/private(?=/(?:etc|tmp|var)(?:/|$))")
_LINKED: Final = re.compile(r"/(?:etc|tmp|var)(?:/|$)")


def of_windows(path: str) -> str:
    r"""/c/Users/x for C:\Users\x, C:/Users/x and \\?\C:\Users\x; other paths, with slashes."""
    path = path.removeprefix("\\\\?\\")
    match = _DRIVE.match(path)
    if match is None:
        return path.replace("\\", "/")
    return f"/{match[1].lower()}/{path[3:]}".replace("\\", "/").rstrip("/")


def to_windows(path: str) -> str:
    r"""C:\Users\x for /c/Users/x and /mnt/c/Users/x; what is no such path as it is."""
    match = _MOUNTED.match(path)
    return f"{match[1].upper()}:\\{path[match.end() :]}".replace("/", "\\") if match else path


def windows_has(name: str) -> bool:
    """Whether a file there can have that name, and be opened by it."""
    return not _NEVER.search(name) and not _DEVICES.fullmatch(name)


def of_macos(path: str) -> str:
    """Without the /private in front of etc, tmp and var: as programs say it."""
    return _PRIVATE.sub("", path, count=1)


def other_of_macos(path: str) -> tuple[str, ...]:
    return (f"/private{path}",) if _LINKED.match(path) else ()


def other_of_windows(path: str) -> tuple[str, ...]:
    return (f"/mnt{path}",) if re.match(r"/[a-z](?:/|$)", path) else ()
