"""What Windows says when it refuses something with a file, in POSIX's words. Pure: it can be looked at on every system."""

from __future__ import annotations

import errno
import os
from typing import Final

# MS-ERREF 2.3.1. What another program has open in a way that shuts us out is busy.
_ERRNO: Final = {
    0x80000006: errno.ENOENT,  # NO_MORE_FILES
    0xC0000002: errno.ENOSYS,  # NOT_IMPLEMENTED
    0xC0000003: errno.EINVAL,  # INVALID_INFO_CLASS
    0xC0000008: errno.EBADF,  # INVALID_HANDLE
    0xC000000D: errno.EINVAL,  # INVALID_PARAMETER
    0xC000000F: errno.ENOENT,  # NO_SUCH_FILE
    0xC0000010: errno.ENOTSUP,  # INVALID_DEVICE_REQUEST
    0xC0000011: 0,  # END_OF_FILE
    0xC0000017: errno.ENOMEM,  # NO_MEMORY
    0xC0000022: errno.EACCES,  # ACCESS_DENIED
    0xC0000033: errno.EINVAL,  # OBJECT_NAME_INVALID
    0xC0000034: errno.ENOENT,  # OBJECT_NAME_NOT_FOUND
    0xC0000035: errno.EEXIST,  # OBJECT_NAME_COLLISION
    0xC000003A: errno.ENOENT,  # OBJECT_PATH_NOT_FOUND
    0xC0000043: errno.EBUSY,  # SHARING_VIOLATION
    0xC0000044: errno.EDQUOT,  # QUOTA_EXCEEDED
    0xC0000054: errno.EBUSY,  # FILE_LOCK_CONFLICT
    0xC0000056: errno.EBUSY,  # DELETE_PENDING
    0xC0000061: errno.EPERM,  # PRIVILEGE_NOT_HELD
    0xC000007F: errno.ENOSPC,  # DISK_FULL
    0xC0000098: errno.ESTALE,  # FILE_INVALID
    0xC000009A: errno.ENOMEM,  # INSUFFICIENT_RESOURCES
    0xC00000A2: errno.EROFS,  # MEDIA_WRITE_PROTECTED
    0xC00000BA: errno.EISDIR,  # FILE_IS_A_DIRECTORY
    0xC00000BB: errno.ENOTSUP,  # NOT_SUPPORTED
    0xC00000D4: errno.EXDEV,  # NOT_SAME_DEVICE
    0xC0000101: errno.ENOTEMPTY,  # DIRECTORY_NOT_EMPTY
    0xC0000103: errno.ENOTDIR,  # NOT_A_DIRECTORY
    0xC0000106: errno.ENAMETOOLONG,  # NAME_TOO_LONG
    0xC000011F: errno.EMFILE,  # TOO_MANY_OPENED_FILES
    0xC0000120: errno.ECANCELED,  # CANCELLED
    0xC0000121: errno.EACCES,  # CANNOT_DELETE
    0xC0000123: errno.ENOENT,  # FILE_DELETED
    0xC0000185: errno.EIO,  # IO_DEVICE_ERROR
    0xC0000243: errno.EBUSY,  # USER_MAPPED_FILE
    0xC0000265: errno.EMLINK,  # TOO_MANY_LINKS
    0xC0000275: errno.EINVAL,  # NOT_A_REPARSE_POINT
    0xC0000279: errno.ELOOP,  # IO_REPARSE_TAG_NOT_HANDLED
    0xC000050B: errno.ELOOP,  # REPARSE_POINT_ENCOUNTERED
    0xC000CE01: errno.EIO,  # a folder of the cloud: REPARSE_POINT_ENCOUNTERED's neighbours, CLOUD_FILE_*
    0xC000CF09: errno.EIO,  # CLOUD_FILE_NETWORK_UNAVAILABLE
}

# What an older Windows, another file system or Wine says to a request that it does not know.
_UNKNOWN: Final = frozenset({0xC0000002, 0xC0000003, 0xC000000D, 0xC0000010, 0xC00000BB})


def failed(status: int, name: bytes | str = b"") -> OSError:
    """The error of a status that is no success; a name in bytes is UTF-16."""
    status &= 0xFFFFFFFF
    number = _ERRNO.get(status) or errno.EIO
    text = name if isinstance(name, str) else name.decode("utf-16-le", "replace")
    error = OSError(number, f"{os.strerror(number)} (NTSTATUS {status:#010x})", text)
    error.ntstatus = status  # type: ignore[attr-defined]
    return error


def is_unknown(error: OSError) -> bool:
    """Whether the request is one that this Windows, or this file system, does not know."""
    return getattr(error, "ntstatus", 0) in _UNKNOWN
