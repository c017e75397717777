"""Files by handle on Windows: names are opened relative to the handle of their folder, which no rename or link can lead astray.

By ntdll, whose NtCreateFile has what CreateFileW has not: a folder to begin from (OBJECT_ATTRIBUTES.RootDirectory), and no
rewriting of names (`CON`, `a.`, 260 units). Structures and classes: Microsoft's ntifs.h, MS-FSCC 2.4, winternl.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from ctypes import wintypes
from typing import Any, Final

from launcher.host._places import long_windows
from launcher.host.ntformat import ATTRIBUTE_NORMAL, ATTRIBUTE_READONLY, ATTRIBUTE_REPARSE, Info, entries, information, named
from launcher.host.ntstatus import failed, is_unknown

# Access
READ_DATA: Final = 0x1  # of a folder: list it
WRITE_DATA: Final = 0x2
APPEND_DATA: Final = 0x4  # alone: whatever is written goes to the end
READ_ATTRIBUTES: Final = 0x80
WRITE_ATTRIBUTES: Final = 0x100
DELETE: Final = 0x10000
_SYNCHRONIZE: Final = 0x100000
# Share modes
SHARE_ALL: Final = 0x7
SHARE_NO_DELETE: Final = 0x3
# Dispositions
OPEN: Final = 1
CREATE: Final = 2
OPEN_IF: Final = 3
# Options
FOLDER: Final = 0x1
NO_FOLDER: Final = 0x40
AS_IT_IS: Final = 0x200000  # FILE_OPEN_REPARSE_POINT: a link itself, not where it leads
_SYNCHRONOUS: Final = 0x20
WRITE_THROUGH: Final = 0x2
_CASE_INSENSITIVE: Final = 0x40  # OBJ_CASE_INSENSITIVE
_BUFFER: Final = 64 << 10
_GET_REPARSE: Final = 0x900A8  # FSCTL_GET_REPARSE_POINT
_SET_SPARSE: Final = 0x900C4  # FSCTL_SET_SPARSE
_NO_MORE: Final = (0x80000006, 0xC000000F)
_BASIC, _RENAME, _LINK, _DISPOSITION, _END_OF_FILE, _ALL, _TAG = 4, 10, 11, 13, 20, 18, 35
_LISTING: Final = 37  # FileIdBothDirectoryInformation
_DISPOSITION_EX, _RENAME_EX = 64, 65
_POSIX_DELETE: Final = 0x1 | 0x2 | 0x10  # DELETE | POSIX_SEMANTICS | IGNORE_READONLY_ATTRIBUTE
_POSIX_RENAME: Final = 0x1 | 0x2 | 0x40  # REPLACE_IF_EXISTS | POSIX_SEMANTICS | IGNORE_READONLY_ATTRIBUTE


with contextlib.suppress(ImportError):  # elsewhere this module is only read
    import msvcrt


class _Text(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("maximum", ctypes.c_uint16), ("buffer", ctypes.c_void_p))


class _Object(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_uint32),
        ("folder", ctypes.c_void_p),
        ("name", ctypes.c_void_p),
        ("attributes", ctypes.c_uint32),
        ("security", ctypes.c_void_p),
        ("quality", ctypes.c_void_p),
    )


class _Outcome(ctypes.Structure):
    _fields_ = (("status", ctypes.c_void_p), ("information", ctypes.c_size_t))


class NtFiles:
    """The calls. Names are UTF-16 of one component, handles are numbers that `close` ends. Every method raises OSError."""

    def __init__(self) -> None:
        self._nt: Any = ctypes.WinDLL("ntdll")  # type: ignore[attr-defined,unused-ignore]
        self._kernel: Any = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
        handle, number, pointer = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p
        for name, types in (
            ("NtCreateFile", (pointer, number, pointer, pointer, pointer, number, number, number, number, pointer, number)),
            ("NtQueryInformationFile", (handle, pointer, pointer, number, number)),
            ("NtSetInformationFile", (handle, pointer, pointer, number, number)),
            ("NtFsControlFile", (handle, handle, pointer, pointer, pointer, number, pointer, number, pointer, number)),
            ("NtClose", (handle,)),
            (
                "NtQueryDirectoryFile",
                (handle, handle, pointer, pointer, pointer, pointer, number, number, ctypes.c_uint8, pointer, ctypes.c_uint8),
            ),
        ):
            function = getattr(self._nt, name)
            function.argtypes, function.restype = types, ctypes.c_uint32
        self._kernel.CreateFileW.argtypes = (wintypes.LPCWSTR, number, number, pointer, number, number, handle)
        self._kernel.CreateFileW.restype = handle
        self._kernel.GetFinalPathNameByHandleW.argtypes = (handle, pointer, number, number)
        self._kernel.GetFileInformationByHandle.argtypes = (handle, pointer)
        self._kernel.GetVolumeInformationByHandleW.argtypes = (
            handle, wintypes.LPWSTR, number, pointer, pointer, pointer, wintypes.LPWSTR, number,
        )  # fmt: skip
        self._kernel.GetDiskFreeSpaceExW.argtypes = (wintypes.LPCWSTR, pointer, pointer, pointer)
        self._kernel.CreateSymbolicLinkW.argtypes = (wintypes.LPCWSTR, wintypes.LPCWSTR, number)
        self._kernel.CreateSymbolicLinkW.restype = ctypes.c_uint8

    def root(self, path: str) -> int:
        """The folder at a path of Windows, links followed."""
        access = READ_DATA | READ_ATTRIBUTES | _SYNCHRONIZE
        handle = self._kernel.CreateFileW(
            long_windows(path), access, SHARE_ALL, None, 3, 0x02000000, None
        )  # OPEN_EXISTING, BACKUP_SEMANTICS
        if handle in (None, ctypes.c_void_p(-1).value):
            raise self._last(path)
        return int(handle)

    def open(
        self,
        folder: int,
        name: bytes,
        access: int,
        *,
        share: int = SHARE_ALL,
        disposition: int = OPEN,
        options: int = AS_IT_IS,
        attributes: int = ATTRIBUTE_NORMAL,
    ) -> tuple[int, bool]:
        """A handle, and whether the entry was made by this. `name` may have several components here, parted by backslashes:
        links on the way are followed then. An empty one is the folder itself."""
        text = _Text(len(name), len(name), ctypes.cast(ctypes.c_char_p(name), ctypes.c_void_p))
        wanted = _Object(ctypes.sizeof(_Object), folder, ctypes.addressof(text), _CASE_INSENSITIVE, None, None)
        handle, outcome = ctypes.c_void_p(), _Outcome()
        status = self._nt.NtCreateFile(
            ctypes.byref(handle), access | READ_ATTRIBUTES | _SYNCHRONIZE, ctypes.byref(wanted), ctypes.byref(outcome), None,
            attributes, share, disposition, options | _SYNCHRONOUS, None, 0,
        )  # fmt: skip
        if status:
            raise failed(status, name)
        return int(handle.value or 0), outcome.information == CREATE

    def close(self, handle: int) -> None:
        self._nt.NtClose(handle)

    def info(self, handle: int) -> Info:
        buffer = ctypes.create_string_buffer(104)
        self._query(handle, _ALL, buffer)
        found = information(buffer.raw)
        if not found.attributes & ATTRIBUTE_REPARSE:
            return found
        tag = ctypes.create_string_buffer(8)
        self._query(handle, _TAG, tag)
        return found._replace(tag=struct.unpack_from("<I", tag, 4)[0])

    def volume(self, handle: int) -> int:
        """Its serial number."""
        buffer = ctypes.create_string_buffer(52)  # BY_HANDLE_FILE_INFORMATION
        if not self._kernel.GetFileInformationByHandle(handle, buffer):
            raise self._last()
        return int(struct.unpack_from("<I", buffer, 28)[0])

    def file_system(self, handle: int) -> str:
        """Its name: NTFS, FAT32, exFAT."""
        buffer = ctypes.create_unicode_buffer(64)
        if not self._kernel.GetVolumeInformationByHandleW(handle, None, 0, None, None, None, buffer, 64):
            raise self._last()
        return str(buffer.value)

    def final_path(self, handle: int, *, drive: bool = False) -> str:
        """The path in the volume as it is spelled there, without the volume; or all of it (`\\\\?\\C:\\...`)."""
        buffer = ctypes.create_string_buffer(_BUFFER)
        units = self._kernel.GetFinalPathNameByHandleW(handle, buffer, _BUFFER // 2, 0 if drive else 4)
        if not 0 < units < _BUFFER // 2:
            raise self._last()
        return buffer.raw[: units * 2].decode("utf-16-le", "surrogatepass")

    def listing(self, folder: int) -> Iterator[tuple[bytes, Info]]:
        """Its entries, also `.` and `..`; links is 1."""
        buffer, outcome = ctypes.create_string_buffer(_BUFFER), _Outcome()
        while True:
            status = self._nt.NtQueryDirectoryFile(
                folder, None, None, None, ctypes.byref(outcome), buffer, _BUFFER, _LISTING, 0, None, 0
            )
            if status in _NO_MORE:
                return
            if status:
                raise failed(status)
            yield from entries(buffer.raw[: outcome.information])

    def descriptor(self, handle: int, *, appends: bool) -> int:
        """One of the C library, which has the handle from then on: os.close ends both."""
        flags = os.O_APPEND if appends else 0
        return int(msvcrt.open_osfhandle(handle, flags))  # type: ignore[attr-defined,unused-ignore]

    def handle(self, descriptor: int) -> int:
        """Of a descriptor; it stays the descriptor's."""
        return int(msvcrt.get_osfhandle(descriptor))  # type: ignore[attr-defined,unused-ignore]

    def set_size(self, handle: int, size: int) -> None:
        self._set(handle, _END_OF_FILE, struct.pack("<q", size))

    def set_sparse(self, handle: int) -> None:
        status = self._nt.NtFsControlFile(handle, None, None, None, ctypes.byref(_Outcome()), _SET_SPARSE, None, 0, None, 0)
        if status:
            raise failed(status)

    def set_basic(self, handle: int, *, accessed: int = 0, written: int = 0, attributes: int = 0) -> None:
        """Times and attributes; 0 leaves what is there."""
        self._set(handle, _BASIC, struct.pack("<qqqqIi", 0, accessed, written, 0, attributes, 0))

    def delete(self, handle: int) -> None:
        """Take this name away, at once where the file system can (NTFS since Windows 10 1709): else when all have closed it."""
        try:
            self._set(handle, _DISPOSITION_EX, struct.pack("<I", _POSIX_DELETE))
        except OSError as error:
            if not is_unknown(error):
                raise
            attributes = self.info(handle).attributes
            if attributes & ATTRIBUTE_READONLY:
                self.set_basic(handle, attributes=attributes & ~ATTRIBUTE_READONLY or ATTRIBUTE_NORMAL)
            self._set(handle, _DISPOSITION, struct.pack("<B", 1))

    def rename(self, handle: int, folder: int, name: bytes, *, replace: bool) -> None:
        """Give it that name in that folder."""
        if replace:
            try:
                self._set(handle, _RENAME_EX, named(_POSIX_RENAME, folder, name))
            except OSError as error:
                if not is_unknown(error):
                    raise
            else:
                return
        self._set(handle, _RENAME, named(int(replace), folder, name))

    def link(self, handle: int, folder: int, name: bytes) -> None:
        self._set(handle, _LINK, named(0, folder, name))

    def reparse(self, handle: int) -> bytes:
        """The data of a reparse point, MS-FSCC 2.1.2."""
        buffer, outcome = ctypes.create_string_buffer(16 << 10), _Outcome()
        status = self._nt.NtFsControlFile(
            handle, None, None, None, ctypes.byref(outcome), _GET_REPARSE, None, 0, buffer, len(buffer)
        )
        if status:
            raise failed(status)
        return buffer.raw[: outcome.information]

    def symlink(self, path: str, target: str, *, folder: bool) -> None:
        """At a whole path: the caller holds the folder, so that it stays where it is. EPERM without the privilege."""
        # SYMBOLIC_LINK_FLAG_ALLOW_UNPRIVILEGED_CREATE: in developer mode anybody may.
        if not self._kernel.CreateSymbolicLinkW(long_windows(path), target, int(folder) | 0x2):
            raise self._last(path)

    def room(self, path: str) -> tuple[int, int, int]:
        """Bytes: what the user may still use, the whole volume, what is free of it."""
        found = [ctypes.c_uint64() for _ in range(3)]
        if not self._kernel.GetDiskFreeSpaceExW(long_windows(path), *map(ctypes.byref, found)):
            raise self._last(path)
        return found[0].value, found[1].value, found[2].value

    def _query(self, handle: int, kind: int, buffer: Any) -> None:
        status = self._nt.NtQueryInformationFile(handle, ctypes.byref(_Outcome()), buffer, len(buffer), kind)
        if status & 0xC0000000 == 0xC0000000:  # a warning is that the name at the end did not fit
            raise failed(status)

    def _set(self, handle: int, kind: int, data: bytes) -> None:
        status = self._nt.NtSetInformationFile(handle, ctypes.byref(_Outcome()), ctypes.c_char_p(data), len(data), kind)
        if status:
            raise failed(status)

    def _last(self, path: str = "") -> OSError:
        error: OSError = ctypes.WinError(ctypes.get_last_error())  # type: ignore[attr-defined,unused-ignore]
        if error.winerror == 1314:  # type: ignore[attr-defined,unused-ignore]  # ERROR_PRIVILEGE_NOT_HELD
            return failed(0xC0000061, path)
        error.filename = path or None
        return error
