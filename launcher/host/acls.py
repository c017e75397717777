"""Who may use our pipes and folders on Windows: this user, and the system. By ctypes, from winnt.h, sddl.h and aclapi.h."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Iterator
from ctypes import wintypes
from functools import cache
from typing import Any, Final

_QUERY: Final = 0x8  # TOKEN_QUERY
_USER: Final = 1  # TokenUser
_FILE: Final = 1  # SE_FILE_OBJECT
_KERNEL_OBJECT: Final = 6
_OWNER: Final = 1  # OWNER_SECURITY_INFORMATION
_ACCESS: Final = 0x4  # DACL_SECURITY_INFORMATION
_NOT_INHERITED: Final = 0x80000000  # PROTECTED_DACL_SECURITY_INFORMATION
_REVISION: Final = 1
# One entry of an access list as text: type, flags, rights, two identifiers of objects, whose it is (MS-DTYP 2.5.1.1).
_ENTRY: Final = re.compile(r"\((\w+);\w*;([^;]*);[^;]*;[^;]*;([^;)]*)")
_GRANTS: Final = ("A", "OA", "XA", "ZA")
_READS: Final = re.compile(r"(?:..)*(?:FA|FR|GA|GR|CC)")  # two letters each; CC is to read a file, or to list a folder
_READ_BITS: Final = 0x90000001  # GENERIC_READ, GENERIC_ALL, FILE_READ_DATA
# The system; administrators, also the built-in one (LA), whose number Windows does not write out, and the domain's; the owner
# whoever that is; programs in a box of Windows' own are the user's too.
_TRUSTED: Final = frozenset({"SY", "BA", "LA", "DA", "CO", "OW", "AC", "S-1-5-18", "S-1-5-32-544", "S-1-3-0", "S-1-3-4"})
_BOXES: Final = "S-1-15-"
_NO_LIST: Final = "NO_ACCESS_CONTROL"


class _Attributes(ctypes.Structure):
    """SECURITY_ATTRIBUTES."""

    _fields_ = (("length", wintypes.DWORD), ("descriptor", ctypes.c_void_p), ("inherit", wintypes.BOOL))


@cache
def _kernel() -> Any:
    library: Any = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    pointer, handle = ctypes.c_void_p, wintypes.HANDLE
    library.GetCurrentProcess.restype = handle
    library.LocalFree.argtypes = (pointer,)
    library.CloseHandle.argtypes = (handle,)
    library.SetEvent.argtypes = (handle,)
    library.CreateEventW.argtypes = (pointer, wintypes.BOOL, wintypes.BOOL, wintypes.LPCWSTR)
    library.CreateEventW.restype = handle
    return library


@cache
def _security() -> Any:
    library: Any = ctypes.WinDLL("advapi32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    pointer, handle, number = ctypes.c_void_p, wintypes.HANDLE, wintypes.DWORD
    library.OpenProcessToken.argtypes = (handle, number, pointer)
    library.GetTokenInformation.argtypes = (handle, ctypes.c_int, pointer, number, pointer)
    library.ConvertSidToStringSidW.argtypes = (pointer, pointer)
    library.ConvertStringSecurityDescriptorToSecurityDescriptorW.argtypes = (wintypes.LPCWSTR, number, pointer, pointer)
    library.GetSecurityInfo.argtypes = (handle, ctypes.c_int, number, pointer, pointer, pointer, pointer, pointer)
    library.GetSecurityInfo.restype = number
    library.GetSecurityDescriptorDacl.argtypes = (pointer, pointer, pointer, pointer)
    library.SetNamedSecurityInfoW.argtypes = (wintypes.LPCWSTR, ctypes.c_int, number, pointer, pointer, pointer, pointer)
    library.SetNamedSecurityInfoW.restype = number
    library.GetNamedSecurityInfoW.argtypes = (
        wintypes.LPCWSTR,
        ctypes.c_int,
        number,
        pointer,
        pointer,
        pointer,
        pointer,
        pointer,
    )
    library.GetNamedSecurityInfoW.restype = number
    library.ConvertSecurityDescriptorToStringSecurityDescriptorW.argtypes = (pointer, number, number, pointer, pointer)
    return library


def new_event() -> int:
    """One that stays set (CreateEvent)."""
    return int(_checked(_kernel().CreateEventW(None, True, False, None)))


def set_event(handle: int) -> None:
    _checked(_kernel().SetEvent(handle))


@cache
def user() -> str:
    """This user, as the system numbers them: S-1-5-21-..."""
    token = wintypes.HANDLE()
    _checked(_security().OpenProcessToken(_kernel().GetCurrentProcess(), _QUERY, ctypes.byref(token)))
    try:
        size = wintypes.DWORD()
        _security().GetTokenInformation(token, _USER, None, 0, ctypes.byref(size))
        found = ctypes.create_string_buffer(size.value)
        _checked(_security().GetTokenInformation(token, _USER, found, size, ctypes.byref(size)))
        return _text(ctypes.c_void_p.from_buffer(found).value)
    finally:
        _kernel().CloseHandle(token)


@contextlib.contextmanager
def attributes() -> Iterator[int]:
    """The address of attributes for a new pipe: this user's own, and open to nobody else but the system."""
    text = f"O:{user()}D:P(A;;GA;;;{user()})(A;;GA;;;SY)"
    descriptor = ctypes.c_void_p()
    _checked(_from_text(text, descriptor))
    try:
        made = _Attributes(ctypes.sizeof(_Attributes), descriptor, False)
        yield ctypes.addressof(made)
    finally:
        _kernel().LocalFree(descriptor)


def check_owner(handle: int, name: str) -> None:
    """Raises PermissionError when another user made the pipe: any user can make one of any name before us."""
    owner, descriptor = ctypes.c_void_p(), ctypes.c_void_p()
    code = _security().GetSecurityInfo(
        handle, _KERNEL_OBJECT, _OWNER, ctypes.byref(owner), None, None, None, ctypes.byref(descriptor)
    )
    if code != 0:
        raise PermissionError(f"whose {name} is cannot be known: error {code}")
    try:
        found = _text(owner.value)
    finally:
        _kernel().LocalFree(descriptor)
    if found != user():
        raise PermissionError(f"{name} belongs to another user ({found})")


def close(folder: str) -> None:
    """Take the folder from everybody else, with all that will be made in it: other users, and what its own folder let in."""
    descriptor, entries = ctypes.c_void_p(), ctypes.c_void_p()
    _checked(_from_text(f"D:P(A;OICI;FA;;;{user()})(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)", descriptor))
    try:
        there = wintypes.BOOL()
        find = _security().GetSecurityDescriptorDacl
        _checked(find(descriptor, ctypes.byref(there), ctypes.byref(entries), ctypes.byref(wintypes.BOOL())))
        code = _security().SetNamedSecurityInfoW(folder, _FILE, _ACCESS | _NOT_INHERITED, None, None, entries, None)
    finally:
        _kernel().LocalFree(descriptor)
    if code != 0:
        raise ctypes.WinError(code)  # type: ignore[attr-defined,unused-ignore]


def listed(path: str) -> str:
    """The access list of a file or folder as text (SDDL). Raises OSError when it cannot be had."""
    descriptor, text = ctypes.c_void_p(), wintypes.LPWSTR()
    code = _security().GetNamedSecurityInfoW(path, _FILE, _ACCESS, None, None, None, None, ctypes.byref(descriptor))
    if code != 0:
        raise ctypes.WinError(code)  # type: ignore[attr-defined,unused-ignore]
    try:
        convert = _security().ConvertSecurityDescriptorToStringSecurityDescriptorW
        _checked(convert(descriptor, _REVISION, _ACCESS, ctypes.byref(text), None))
        return str(text.value)
    finally:
        _kernel().LocalFree(text)
        _kernel().LocalFree(descriptor)


def readers(text: str, user: str) -> list[str]:
    """Whom an access list as text lets read, beside that user, the system and administrators. Pure."""
    _, there, entries_text = text.partition("D:")
    if not there or _NO_LIST in text:  # without a list all may do all
        return ["WD"]
    entries = _ENTRY.findall(entries_text)
    named = [who for kind, rights, who in entries if kind in _GRANTS and _reads(rights)]
    return [who for who in named if who != user and who not in _TRUSTED and not who.startswith(_BOXES)]


def _reads(rights: str) -> bool:
    return bool(int(rights, 0) & _READ_BITS) if rights.startswith("0") else _READS.match(rights) is not None


def _from_text(text: str, descriptor: ctypes.c_void_p) -> Any:
    convert = _security().ConvertStringSecurityDescriptorToSecurityDescriptorW
    return convert(text, _REVISION, ctypes.byref(descriptor), None)


def _text(identity: int | None) -> str:
    text = wintypes.LPWSTR()
    _checked(_security().ConvertSidToStringSidW(identity, ctypes.byref(text)))
    try:
        return str(text.value)
    finally:
        _kernel().LocalFree(text)


def _checked(result: Any) -> Any:
    if not result:
        raise ctypes.WinError(ctypes.get_last_error())  # type: ignore[attr-defined,unused-ignore]
    return result
