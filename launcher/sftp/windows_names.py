"""Names and link targets of a Windows share in the guest's words: bytes there, UTF-16 here. Pure.

A name that Windows cannot have, or that its programs could not open, does not exist (ENOENT) and cannot be made (EINVAL).
Names of Windows with half a surrogate pair are bytes as WTF-8 has them (https://simonsapin.github.io/wtf-8/).
"""

from __future__ import annotations

import errno
import os
import re
import struct
from typing import Final

# "Naming Files, Paths, and Namespaces" of Microsoft; `:` would name a stream in a file, and `<>"` are wildcards of the kernel.
_FORBIDDEN: Final = re.compile(r'[<>:"|?*\\/\x00-\x1f]')
_DEVICES: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(?:\..*)?", re.IGNORECASE
)
_LONGEST: Final = 255  # units here, bytes there
_DRIVE: Final = re.compile(r"([A-Za-z]):(\\.*)?", re.DOTALL)

TAG_SYMLINK: Final = 0xA000000C
TAG_JUNCTION: Final = 0xA0000003
TAG_LINUX_SYMLINK: Final = 0xA000001D  # made by WSL
SURROGATE: Final = 0x20000000  # the bit of the tags of what stands for something else


def looked_up(name: bytes) -> bytes:
    """UTF-16 of one component. Raises OSError (ENOENT, ENAMETOOLONG) for what Windows cannot have."""
    if len(name) > _LONGEST:
        raise _fail(errno.ENAMETOOLONG, name)
    try:
        text = name.decode("utf-8", "surrogatepass")
        units = text.encode("utf-16-le", "surrogatepass")
        # Half pairs that make a whole one are another spelling of one name.
        plain = units.decode("utf-16-le", "surrogatepass") == text
    except UnicodeDecodeError:
        plain = False
    if not plain or not text or _FORBIDDEN.search(text) or text[-1] in ". ":
        raise _fail(errno.ENOENT, name)
    return units


def made(name: bytes) -> bytes:
    """As `looked_up`, for an entry that is to be made. Raises OSError with EINVAL also for devices' names (`nul`, `aux.c`):
    they could be made, and neither opened nor deleted by Windows' programs."""
    try:
        units = looked_up(name)
    except FileNotFoundError:
        raise _fail(errno.EINVAL, name) from None
    if _DEVICES.fullmatch(name.decode("utf-8", "surrogatepass")):
        raise _fail(errno.EINVAL, name)
    return units


def shown(units: bytes) -> bytes | None:
    """Bytes of a name that is there; None for one that the guest cannot have: it is not listed."""
    name = units.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")
    try:
        return name if looked_up(name) == units else None
    except OSError:
        return None


def same(one: str, other: str) -> bool:
    """Whether NTFS takes the two for one name: each UTF-16 unit in its upper case."""
    return one == other or [_upper(letter) for letter in one] == [_upper(letter) for letter in other]


def _upper(letter: str) -> str:
    upper = letter.upper()
    return upper if len(upper) == 1 else letter  # "ß" has none of one unit


def below(path: str, root: str) -> str | None:
    """What follows `root` in `path`, "" for the root itself; None when it is not in it. Both as GetFinalPathNameByHandleW has
    them; a name that only begins as the root's is not in it."""
    root = root.rstrip("\\")
    if not same(path[: len(root)], root):
        return None
    rest = path[len(root) :]
    if not rest.strip("\\"):
        return ""
    return rest[1:] if rest.startswith("\\") else None


def link_text(data: bytes) -> str | bytes:
    """Where a link leads: a path of Windows, absolute or relative; bytes of Linux for one of WSL. MS-FSCC 2.1.2.4 and 2.1.2.5.
    Raises OSError (EINVAL) when it is no link, or not as it should be."""
    try:
        tag, length = struct.unpack_from("<IH", data)
        body = data[8 : 8 + length]
        if tag == TAG_LINUX_SYMLINK:
            return body[4:]
        if tag not in (TAG_SYMLINK, TAG_JUNCTION):
            raise _fail(errno.EINVAL, b"")
        offset, size = struct.unpack_from("<HH", body)
    except struct.error:
        raise _fail(errno.EINVAL, b"") from None
    start = (12 if tag == TAG_SYMLINK else 8) + offset
    text = body[start : start + size].decode("utf-16-le", "surrogatepass")
    return text.removeprefix("\\??\\")


def guest_target(text: str, root: str, folder: str) -> bytes:
    """The guest's words for a target of Windows. `root` and `folder`, where the link lies, are whole paths (`C:\\...`). What is
    in the share is told relative to the link, so that it leads there wherever the share is mounted; the rest as `/c/...`."""
    match = _DRIVE.fullmatch(text)
    inside = below(text, root) if match else None
    if inside is not None:
        depth = len([name for name in (below(folder, root) or "").split("\\") if name])
        text = "\\".join([*[".."] * depth, *filter(None, inside.split("\\"))]) or "."
    elif match:
        text = f"/{match[1].lower()}{match[2] or ''}"
    return text.replace("\\", "/").encode("utf-8", "surrogatepass")


def host_target(target: bytes) -> str:
    """Windows' words for a relative target. Raises OSError: EPERM for an absolute one, which is a path of the guest alone,
    EINVAL for names that Windows cannot have."""
    if target.startswith(b"/"):
        raise _fail(errno.EPERM, target)
    names = target.rstrip(b"/").split(b"/")
    parts = [name.decode() if name in (b".", b"..", b"") else made(name).decode("utf-16-le", "surrogatepass") for name in names]
    return "\\".join(parts)


def _fail(number: int, name: bytes) -> OSError:
    return OSError(number, os.strerror(number), name)
