"""The end of a user's session, as Wine ends one: every window is asked, then told, as by Windows itself."""

from __future__ import annotations

import contextlib
import select
import subprocess
from collections.abc import Iterator
from typing import Final

import pytest

from tests.windows import fixture
from tests.windows.wine import ROOT, Windows, program

_SECONDS: Final = 300  # a hang guard
_GRAPHICS: Final = (r"HKCU\Software\Wine\Drivers", "/v", "Graphics")

# What the keeper does: it hears of the end, works for a while, and is over.
_KEEPER: Final = """
import sys, threading
from launcher import host
told = threading.Event()
host.current().when_session_ends("it stops its machine", told.set)
print("listening", flush=True)
heard = told.wait(300)
threading.Event().wait(1)
print("heard and done" if heard else "not heard", flush=True)
"""

# The Restart Manager, for an installer that wants a file: as it asks, and goes on when nobody objects.
_INSTALLER: Final = """
import ctypes
user32 = ctypes.WinDLL("user32")
user32.FindWindowW.restype = ctypes.c_void_p
user32.FindWindowW.argtypes = ctypes.c_wchar_p, ctypes.c_void_p
user32.SendMessageW.argtypes = ctypes.c_void_p, ctypes.c_uint, ctypes.c_size_t, ctypes.c_ssize_t
window = user32.FindWindowW("wherry", None)
yes = user32.SendMessageW(window, 0x11, 0, 1)
if yes == 0:
    user32.SendMessageW(window, 0x16, 1, 1)
print("the answer of", bool(window), "was", yes, flush=True)
"""


@pytest.fixture
def windows() -> Iterator[Windows]:
    """With windows that nobody sees: without a display Wine makes none, but by this setting."""
    if why := fixture.missing():
        pytest.skip(why)
    with fixture.alone() as made:
        made.run(["reg", "add", *_GRAPHICS, "/d", "null", "/f"], timeout=_SECONDS)
        made.end()
        try:
            yield made
        finally:
            made.run(["reg", "delete", *_GRAPHICS, "/f"], timeout=_SECONDS)


@contextlib.contextmanager
def started(windows: Windows, code: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [program("wine64"), windows.python, "-c", code], env=windows.environment(), cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        windows.end()
        process.communicate(timeout=_SECONDS)


def test_a_keeper_hears_of_the_end_and_is_waited_for(windows: Windows) -> None:
    with started(windows, _KEEPER) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == "listening\n"
        code, said = windows.run([windows.python, "-c", _INSTALLER], timeout=_SECONDS)
        assert (code, said) == (0, "the answer of True was 0\n")
        assert not select.select([keeper.stdout], [], [], 0)[0], "told of an end, it says so before the installer goes on"
        windows.run(["wineboot", "-e"], timeout=_SECONDS)
        assert keeper.stdout.readline() == "heard and done\n"
        assert keeper.wait(_SECONDS) == 0
