"""Where folders of a computer are in the machine: as text, so that each system's way is known on all of them."""

from __future__ import annotations

import ntpath
import re
from typing import Final

# What stands before it says that the path is to be taken as it is (learn.microsoft.com, "Naming Files, Paths, and Namespaces").
_DRIVE: Final = re.compile(r"(?:(?:\\\\|//)[?.][\\/])?([A-Za-z]):(?:[\\/]+|$)")
# As Git Bash has drives, with a second slash where it is not to rewrite the word; as WSL has them.
_MOUNTED: Final = re.compile(r"/(?:/|mnt/)?([A-Za-z])(?:/|$)")
_DRIVE_RELATIVE: Final = re.compile(r"[A-Za-z]:(?![\\/])(?!$)")
_LONGEST: Final = 247  # of a folder: MAX_PATH less room for a name of the 8.3 kind
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
    match = _DRIVE.match(path)
    if match is None:
        return path.replace("\\", "/")
    return f"/{match[1].lower()}/{path[match.end() :]}".replace("\\", "/").rstrip("/")


def clean_windows(path: str) -> str:
    r"""As ntpath.normpath, of all ways to say one path: C:\x for C:/x, \\?\C:\x, /c/x, //c/x. What C:x is depends on where that
    drive stands, which only Windows knows: elsewhere it stays."""
    if match := _DRIVE.match(path):
        path = f"{match[1].upper()}:\\{path[match.end() :]}"
    elif _DRIVE_RELATIVE.match(path):
        path = ntpath.abspath(path)
    return ntpath.normpath(to_windows(path))


def long_windows(path: str) -> str:
    r"""A whole path as Windows opens it whatever its length and the computer's settings: \\?\C:\x."""
    return f"\\\\?\\{path}" if len(path) > _LONGEST and _DRIVE.match(path) and not path.startswith("\\\\") else path


def real_windows(path: str) -> str:
    r"""Without links, as far as that is on a drive: the machine has no place for \\server\share, which a network drive is in
    truth, nor for a volume without a letter. What is there stays on the drive by which it is said."""
    if path.startswith("\\\\.\\"):  # a pipe or a device: there is nothing to follow
        return path
    path = clean_windows(path)
    try:
        real = _followed(path)
        if _DRIVE.match(real) or not _DRIVE.match(path):
            return real
        return _in_drive(real, path[:2], _followed(path[:2] + "\\")) or path
    except OSError:  # of a file system, or of Wine with a long path, that Python does not know the answers of
        return path


def _followed(path: str) -> str:
    real = ntpath.realpath(long_windows(path))
    return "\\\\" + real[8:] if real.startswith("\\\\?\\UNC\\") else real.removeprefix("\\\\?\\")


def _in_drive(path: str, drive: str, root: str) -> str | None:
    r"""Z:\x for \\server\share\x, where `root`, \\server\share, is the drive Z:; None for what is not in it."""
    above = root.rstrip("\\") + "\\"
    return drive + path[len(above) - 1 :] if f"{path}\\".lower().startswith(above.lower()) else None


def to_windows(path: str) -> str:
    r"""C:\Users\x for /c/Users/x, //c/Users/x and /mnt/c/Users/x; what is no such path as it is."""
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
