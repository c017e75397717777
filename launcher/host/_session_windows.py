"""The end of a user's session on Windows: log-off, restart, shutdown. By ctypes, from winuser.h.

A process without a console gets no CTRL_LOGOFF_EVENT and no CTRL_SHUTDOWN_EVENT. What it gets are WM_QUERYENDSESSION and
WM_ENDSESSION, if it has a top-level window; a message-only one gets neither. The window of ours is never shown.
(learn.microsoft.com, "Application Shutdown Changes in Windows Vista".)

How long the system waits is not ours: some seconds unasked, then as long as the user lets it, who sees our reason in the list
of what holds the shutdown up and may end it all the same. A forced shutdown asks nobody.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable
from ctypes import wintypes
from typing import Any, Final

log = logging.getLogger("wherry.host")

QUERY: Final = 0x0011  # WM_QUERYENDSESSION
END: Final = 0x0016  # WM_ENDSESSION
# Of lParam (learn.microsoft.com, "WM_QUERYENDSESSION"). ENDSESSION_CLOSEAPP: no session ends, but the installer of some program
# wants a file that we have, by the Restart Manager. No machine is stopped for that unasked.
CLOSE_APP: Final = 0x00000001
LOGOFF: Final = 0x80000000
# SetProcessShutdownParameters: those with the higher level end first, 0x280 is everybody's, and above 0x3FF is the system's. A
# program that this one has started, and that has no window, would be ended beside it.
_FIRST: Final = 0x3FF
_CLASS: Final = "wherry"


class SessionEnd:
    """Hears of the end, and holds it up."""

    def __init__(self, reason: str, told: Callable[[], None], user32: Any, hold: Callable[[], object]) -> None:
        """`reason`: what the user reads meanwhile. `told` is called once, and returns at once; the session waits for `hold`."""
        self._reason, self._told, self._user32, self._hold = reason, told, user32, hold
        self._ending = False

    def answer(self, window: int, message: int, yes: int, why: int) -> int | None:
        """What a message is answered with; None: as the system does by itself. `yes`, `why`: its wParam and lParam."""
        if message in (QUERY, END) and why & CLOSE_APP and not why & LOGOFF:
            return 0  # to the question: no
        if message == QUERY:
            self._user32.ShutdownBlockReasonCreate(window, self._reason)
            return 1
        if message != END:
            return None
        if not yes:  # another program, or the user, was against it
            self._user32.ShutdownBlockReasonDestroy(window)
            return 0
        if not self._ending:
            self._ending = True
            self._told()
        self._hold()
        return 0


def when_session_ends(reason: str, told: Callable[[], None]) -> None:
    """Call `told` when the session ends, in a thread that stays until this process is over."""
    ready = threading.Event()
    threading.Thread(target=_listen, args=(reason, told, ready), name="session", daemon=True).start()
    ready.wait()


def _listen(reason: str, told: Callable[[], None], ready: threading.Event) -> None:
    try:
        user32 = _user32()
        # Who has answered is ended at once. So we never do: the process ends by itself meanwhile, and the window with it.
        window = _window(user32, SessionEnd(reason, told, user32, threading.Event().wait))
    except OSError as error:  # a service's session has no desktop
        log.warning("the end of the session will not be heard of: %s", error)
        return
    finally:
        ready.set()
    message = wintypes.MSG()
    while user32.GetMessageW(ctypes.byref(message), window.handle, 0, 0) > 0:
        user32.DispatchMessageW(ctypes.byref(message))


class _Window:
    """It lives as long as somebody holds this: the system calls its function."""

    def __init__(self, handle: int, function: Any) -> None:
        self.handle, self._function = handle, function


def _window(user32: Any, end: SessionEnd) -> _Window:
    def answered(window: int, message: int, first: int, second: int) -> int:
        answer = end.answer(window, message, first, second)
        return int(user32.DefWindowProcW(window, message, first, second)) if answer is None else answer

    kernel32: Any = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    kernel32.SetProcessShutdownParameters(_FIRST, 0)
    kernel32.GetModuleHandleW.restype = ctypes.c_void_p
    made = _Class()
    made.function = _FUNCTION(answered)
    made.instance = kernel32.GetModuleHandleW(None)
    made.name = _CLASS
    if not user32.RegisterClassW(ctypes.byref(made)):
        raise ctypes.WinError(ctypes.get_last_error())  # type: ignore[attr-defined,unused-ignore]
    handle = user32.CreateWindowExW(0, _CLASS, _CLASS, 0, 0, 0, 0, 0, None, None, made.instance, None)
    if not handle:
        raise ctypes.WinError(ctypes.get_last_error())  # type: ignore[attr-defined,unused-ignore]
    return _Window(handle, made.function)


_WORD: Final = ctypes.c_ssize_t  # LRESULT, LPARAM; WPARAM but for its sign
_FUNCTION: Final[Any] = getattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE)(_WORD, wintypes.HWND, wintypes.UINT, _WORD, _WORD)


class _Class(ctypes.Structure):
    """WNDCLASSW."""

    _fields_ = (
        ("style", wintypes.UINT), ("function", _FUNCTION), ("more", ctypes.c_int * 2), ("instance", ctypes.c_void_p),
        ("icon", ctypes.c_void_p), ("cursor", ctypes.c_void_p), ("background", ctypes.c_void_p), ("menu", wintypes.LPCWSTR),
        ("name", wintypes.LPCWSTR),
    )  # fmt: skip


def _user32() -> Any:
    library: Any = ctypes.WinDLL("user32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, wintypes.LPCWSTR
    library.DefWindowProcW.argtypes = (wintypes.HWND, wintypes.UINT, _WORD, _WORD)
    library.DefWindowProcW.restype = _WORD
    library.CreateWindowExW.argtypes = (
        wintypes.DWORD, text, text, wintypes.DWORD, number, number, number, number, pointer, pointer, pointer, pointer,
    )  # fmt: skip
    library.CreateWindowExW.restype = wintypes.HWND
    library.GetMessageW.argtypes = (pointer, wintypes.HWND, wintypes.UINT, wintypes.UINT)
    library.DispatchMessageW.argtypes = (pointer,)
    library.ShutdownBlockReasonCreate.argtypes = (wintypes.HWND, text)
    library.ShutdownBlockReasonDestroy.argtypes = (wintypes.HWND,)
    return library
