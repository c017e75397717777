"""STATUS: an OSError of this computer as a code of SFTP and as Linux's errno, by its name: numbers differ between systems."""

from __future__ import annotations

import errno
import os
from struct import Struct
from typing import Final

OK: Final = 0
EOF: Final = 1
NO_SUCH_FILE: Final = 2
PERMISSION_DENIED: Final = 3
FAILURE: Final = 4
BAD_MESSAGE: Final = 5
OP_UNSUPPORTED: Final = 8

# include/uapi/asm-generic/errno-base.h and errno.h: what a call for files may say, and what other systems say instead.
LINUX: Final = {
    "EPERM": 1, "ENOENT": 2, "EINTR": 4, "EIO": 5, "ENXIO": 6, "E2BIG": 7, "EBADF": 9, "EAGAIN": 11, "ENOMEM": 12,
    "EACCES": 13, "EFAULT": 14, "EBUSY": 16, "EEXIST": 17, "EXDEV": 18, "ENODEV": 19, "ENOTDIR": 20, "EISDIR": 21,
    "EINVAL": 22, "ENFILE": 23, "EMFILE": 24, "ENOTTY": 25, "ETXTBSY": 26, "EFBIG": 27, "ENOSPC": 28, "ESPIPE": 29,
    "EROFS": 30, "EMLINK": 31, "EPIPE": 32, "ERANGE": 34, "EDEADLK": 35, "ENAMETOOLONG": 36, "ENOLCK": 37, "ENOSYS": 38,
    "ENOTEMPTY": 39, "ELOOP": 40, "EWOULDBLOCK": 11, "ENODATA": 61, "ENOATTR": 61, "EREMOTE": 66, "EPROTO": 71,
    "EOVERFLOW": 75, "EILSEQ": 84, "EUSERS": 87, "EOPNOTSUPP": 95, "ENOTSUP": 95, "ETIMEDOUT": 110, "EHOSTDOWN": 112,
    "EHOSTUNREACH": 113, "ESTALE": 116, "EDQUOT": 122, "ECANCELED": 125,
}  # fmt: skip
# Windows has some names twice, and its errorcode then knows that of sockets alone (WSAELOOP).
_OF_HOST: Final[dict[int, int]] = {number: LINUX[name] for number, name in errno.errorcode.items() if name in LINUX} | {
    getattr(errno, name): number for name, number in LINUX.items() if hasattr(errno, name)
}
_EIO: Final = 5

# As OpenSSH's errno_to_portable (sftp-server.c); a bad handle there is FAILURE too.
_CODES: Final = {
    **dict.fromkeys((LINUX["ENOENT"], LINUX["ENOTDIR"], LINUX["ELOOP"]), NO_SUCH_FILE),
    **dict.fromkeys((LINUX["EPERM"], LINUX["EACCES"], LINUX["EFAULT"], LINUX["EROFS"]), PERMISSION_DENIED),
    **dict.fromkeys((LINUX["ENAMETOOLONG"], LINUX["EINVAL"]), BAD_MESSAGE),
    **dict.fromkeys((LINUX["ENOSYS"], LINUX["EOPNOTSUPP"]), OP_UNSUPPORTED),
}

_PLAIN: Final = Struct(">I")
_FULL: Final = Struct(">IIIII")  # code, two empty strings, errno, flags


def linux(number: int | None) -> int:
    """Linux's number for one of this computer; EIO for what has none."""
    return _OF_HOST.get(number or 0, _EIO)


def code(number: int) -> int:
    """SFTP's code for a number of Linux."""
    return _CODES.get(number, FAILURE)


def full(sftp: int, number: int, flags: int) -> bytes:
    """A STATUS behind its id, with the two fields of provisioning/shares.md. No words: the guest has errno."""
    return _FULL.pack(sftp, 0, 0, number, flags)


def plain(sftp: int, words: bytes) -> bytes:
    """A STATUS of version 3 behind its id."""
    return _PLAIN.pack(sftp) + _PLAIN.pack(len(words)) + words + _PLAIN.pack(2) + b"en"


def words_of(error: OSError) -> bytes:
    """For people who use another client; without paths of this computer."""
    return os.strerror(error.errno).encode("utf-8", "replace") if error.errno else b"failed"
