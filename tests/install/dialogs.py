"""A user before the windows of a setup program. Runs on Windows: python dialogs.py [WORDS=BUTTON]…

In that order, for each: waits until a window shows the words, and presses the button (1 OK and "next", 2 Cancel, 6 Yes, 7 No).
Prints what that window said, as a line of JSON. What never comes is waited for: whoever runs this ends it then.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from typing import Any

_LOOKS_EVERY = 0.05
_CLICK = 0x00F5  # BM_CLICK
_DIALOG = "#32770"
_LONGEST = 2000


class Desktop:
    """The windows that are to be seen."""

    def __init__(self) -> None:
        self._api: Any = ctypes.windll.user32  # type: ignore[attr-defined,unused-ignore]
        self._each: Any = ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)  # type: ignore[attr-defined,unused-ignore]

    def dialogs(self) -> list[int]:
        return [window for window in self._list(None) if self._class(window) == _DIALOG and self._seen(window)]

    def texts(self, dialog: int) -> str:
        """All that it says."""
        return " ".join(self._text(part) for part in self._list(dialog) if self._seen(part))

    def button(self, dialog: int, number: int) -> int | None:
        """The one of that number that can be pressed."""
        for part in self._list(dialog):
            is_it = self._class(part) == "Button" and self._api.GetDlgCtrlID(ctypes.c_void_p(part)) == number
            if is_it and self._seen(part) and self._api.IsWindowEnabled(ctypes.c_void_p(part)):
                return part
        return None

    def press(self, button: int) -> None:
        self._api.PostMessageW(ctypes.c_void_p(button), _CLICK, None, None)

    def _list(self, above: int | None) -> list[int]:
        found: list[int] = []

        def one(window: int, _: object) -> int:
            found.append(window)
            return 1

        if above is None:
            self._api.EnumWindows(self._each(one), None)
        else:
            self._api.EnumChildWindows(ctypes.c_void_p(above), self._each(one), None)
        return found

    def _seen(self, window: int) -> bool:
        return bool(self._api.IsWindowVisible(ctypes.c_void_p(window)))

    def _text(self, window: int) -> str:
        return self._read(self._api.GetWindowTextW, window)

    def _class(self, window: int) -> str:
        return self._read(self._api.GetClassNameW, window)

    def _read(self, call: Any, window: int) -> str:
        text = ctypes.create_unicode_buffer(_LONGEST)
        call(ctypes.c_void_p(window), text, _LONGEST)
        return text.value


def answer(desktop: Desktop, words: str, number: int) -> None:
    while True:
        for dialog in desktop.dialogs():
            said = desktop.texts(dialog)
            button = desktop.button(dialog, number)
            if words in said and button is not None:
                print(json.dumps(said), flush=True)
                desktop.press(button)
                return
        time.sleep(_LOOKS_EVERY)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        told, _, which = argument.rpartition("=")
        answer(Desktop(), told, int(which))
