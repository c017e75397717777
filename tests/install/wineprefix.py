"""A Windows of a test's own: the drive and the registry of the fixture, in which nothing is installed yet."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tests.windows import fixture, wine
from tests.windows.wine import program

_ENDS_WITHIN: Final = 300  # a hang guard
_OF_WINDOWS: Final = ("windows", "Program Files", "Program Files (x86)", "ProgramData", "users")


@dataclass(frozen=True)
class Computer:
    """A prefix of Wine."""

    folder: Path

    @property
    def drive(self) -> Path:
        return self.folder / "prefix/drive_c"

    @property
    def local(self) -> Path:
        """%LOCALAPPDATA%."""
        [found] = [path for path in self.drive.glob("users/*/AppData/Local") if path.parts[-3] != "Public"]
        return found

    def inside(self, path: Path) -> str:
        """A path on drive C as Windows says it."""
        return "C:\\" + str(path.relative_to(self.drive)).replace("/", "\\")

    def files(self) -> set[str]:
        """All of drive C, but for what Wine and Windows themselves leave where programs run."""
        found = {
            os.path.relpath(os.path.join(folder, name), self.drive)
            for folder, names, more in os.walk(self.drive)
            for name in names + more
        }
        return {
            name for name in found if not re.search(r"/Temp(/|$)|/Temporary Internet Files|\.wine|INetCache|Programs$", name)
        }

    def programs(self) -> dict[int, str]:
        """The command lines of all that runs in it, by this system's numbers."""
        ours, found = f"\0WINEPREFIX={self.folder / 'prefix'}\0".encode(), {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to look at
                if ours in b"\0" + (process / "environ").read_bytes():
                    said = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(process.name)] = said.decode(errors="replace")
        return found

    def environment(self) -> dict[str, str]:
        """Wine's, and nothing of the developer's own."""
        return {
            **{name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "USER", "LOGNAME") if name in os.environ},
            "HOME": str(self.folder / "home"),
            "WINEPREFIX": str(self.folder / "prefix"),
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree=;mshtml=",
        }

    def run(self, words: Sequence[str | Path], *, timeout: float, data: bytes = b"") -> tuple[int, str]:
        """The exit code and all that was said, by pipes: Wine 8 cannot give Python files of Unix. When it takes longer than
        `timeout` seconds, all programs of the prefix are ended and TimeoutExpired is raised."""
        process = subprocess.Popen(
            [program("wine64"), *map(os.fspath, words)], env=self.environment(), cwd=self.folder, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdin and process.stdout
        feeding = threading.Thread(target=_feed, args=(process.stdin, data))
        feeding.start()
        try:
            said = _until_its_end(process, process.stdout.fileno(), timeout)
        except BaseException:
            self.end()
            process.kill()
            raise
        finally:
            code = process.wait()
            feeding.join()
            process.stdout.close()
        return code, said.decode("utf-8", "replace").replace("\r\n", "\n")

    def desktop(self, python: Path) -> AbstractContextManager[None]:
        """With the process that stands for the desktop."""
        return wine.desktop(python, self.environment(), self.folder)

    def draw_nothing(self) -> None:
        """Windows can be there, though there is no screen."""
        key = ["HKCU\\Software\\Wine\\Drivers", "/v", "Graphics", "/d", "null", "/f"]
        code, said = self.run(["reg", "add", *key], timeout=_ENDS_WITHIN)
        assert code == 0, said
        self.end()  # the desktop reads it once
        self.server("-p")

    def server(self, *words: str) -> None:
        subprocess.run([program("wineserver"), *words], env=self.environment(), check=False, timeout=_ENDS_WITHIN)

    def end(self) -> None:
        """End every program of this prefix, and no other."""
        for how in ("-k", "-w"):
            self.server(how)
        # Debian's Wine has its server's socket in a folder of its own beside other programs', and never takes that away.
        with contextlib.suppress(FileNotFoundError):
            name = (self.folder / "prefix/wineserver").read_text()
            shutil.rmtree(Path(tempfile.gettempdir(), name), ignore_errors=True)


@contextmanager
def fresh(folder: Path) -> Iterator[Computer]:
    """Wine's own files are linked, since nobody writes into them; the registry is copied. Its programs end with the test."""
    source = fixture.windows().folder / "prefix"
    for name in _OF_WINDOWS:
        _link(source / "drive_c" / name, folder / "prefix/drive_c" / name)
    shutil.copytree(source / "dosdevices", folder / "prefix/dosdevices", symlinks=True)
    for file in [*source.glob("*.reg"), *source.glob(".update-timestamp")]:
        shutil.copy2(file, folder / "prefix")
    (folder / "home").mkdir()
    made = Computer(folder)
    try:
        made.server("-p")  # else it ends with each program, and the next one waits two seconds for another
        yield made
    finally:
        made.end()


def _feed(stream: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), stream:
        stream.write(data)


def _until_its_end(process: subprocess.Popen[bytes], stream: int, timeout: float) -> bytes:
    """What it says until it ends. Not until the end of the stream: what Wine starts beside the first program of a kind, as
    services and the desktop, has that too and stays."""
    said, deadline = b"", time.monotonic() + timeout
    ended = os.pidfd_open(process.pid)
    try:
        while True:
            ready, _, _ = select.select([stream, ended], [], [], max(0, deadline - time.monotonic()))
            if stream in ready:
                part = os.read(stream, 65536)
                said += part
                if part:
                    continue
                process.wait(max(0, deadline - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(process.args, timeout, said)
            return said
    finally:
        os.close(ended)


def _link(source: Path, target: Path) -> None:
    """Each file by a hard link; what others' tests remove meanwhile is none of Windows'."""
    for above, folders, files in os.walk(source):
        here = target / os.path.relpath(above, source)
        here.mkdir(parents=True, exist_ok=True)
        for name in [*files, *(name for name in folders if os.path.islink(os.path.join(above, name)))]:
            with contextlib.suppress(FileNotFoundError):
                os.link(os.path.join(above, name), here / name, follow_symlinks=False)
