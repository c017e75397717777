"""A home with things that a guest must not reach, a folder outside of it, and who swaps a folder and a link all the time."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

HIDDEN = (".ssh", ".gnupg", ".config/google-chrome")
STARTUP = (".bashrc", ".profile", ".config/autostart/tool.desktop", ".local/bin/tool")
MISSING = (".zshrc", ".config/autostart/new.desktop")  # may be made by nobody in the guest either


class Scene:
    """`home` is shared, `outside` is not; files there hold the marker, in their content and their names."""

    def __init__(self, folder: Path) -> None:
        self.marker = f"marker-{secrets.token_hex(12)}"
        self.home, self.outside = folder / "user", folder / "outside"
        for place in (*HIDDEN, "code"):
            (self.home / place).mkdir(parents=True)
        self.outside.mkdir()
        for place in (*(self.home / hidden for hidden in HIDDEN), self.outside):
            self._fill(place)
        for name in STARTUP:
            (self.home / name).parent.mkdir(parents=True, exist_ok=True)
            (self.home / name).write_text("# mine\n")
        os.mkfifo(self.home / "fifo")
        folder_fd = os.open(self.home, os.O_PATH)  # a socket's own path must be short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"/proc/self/fd/{folder_fd}/socket")
        os.close(folder_fd)
        (self.home / "code" / "main.py").write_text("print('hello')\n")

    def _fill(self, folder: Path) -> None:
        (folder / "secret").write_text(f"{self.marker}\n")
        (folder / f"named-{self.marker}").write_text("x")
        (folder / "victim").write_text("x")

    def plan(self, *, handles: int = 10_000, every: int = 1, **more: str) -> dict[str, object]:
        """What attack.py takes."""
        return {
            "marker": self.marker,
            "outside": [str(self.outside)],
            "hidden": [f"/{name}" for name in HIDDEN],
            "parents": ["/.config"],
            "startup": [f"/{name}" for name in (*STARTUP, *MISSING)],
            "special": ["/fifo", "/socket"],
            "swapped": "/swapped",
            "handles": handles,
            "every": every,
            **more,
        }

    def state(self) -> dict[str, str]:
        """Of everything that the guest may not change: kind, mode, owner, size, mtime, content or target."""
        places = [self.outside, *(self.home / name for name in (*HIDDEN, *STARTUP, *MISSING))]
        found = [path for place in places for path in (place, *place.rglob("*"))]
        return {str(path): self._one(path) for path in found}

    @staticmethod
    def _one(path: Path) -> str:
        try:
            info = path.lstat()
        except FileNotFoundError:
            return "not there"
        words = [oct(info.st_mode), str(info.st_uid), str(info.st_ino)]
        if path.is_file():
            words += [
                str(info.st_size),
                str(info.st_mtime_ns),
                str(info.st_nlink),
                hashlib.sha256(path.read_bytes()).hexdigest(),
            ]
        return " ".join(words)


class Swapper(threading.Thread):
    """While it is entered, home/swapped is by turns a folder with harmless files and a link to the folder outside."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(daemon=True)
        self._scene, self._over = scene, threading.Event()
        self.swaps = 0

    def run(self) -> None:
        home = self._scene.home
        place, folder, link = home / "swapped", home / "swapped-folder", home / "swapped-link"
        while not self._over.is_set():
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                (folder / "secret").write_text("harmless\n")
            link.unlink(missing_ok=True)
            link.symlink_to(self._scene.outside)
            try:
                os.rename(folder, place)
                os.rename(place, folder)
                os.rename(link, place)
                os.rename(place, link)
            except OSError:
                # The guest had a hand in it: what is in the way is put away.
                if place.is_symlink():
                    place.unlink()
                else:
                    shutil.rmtree(place, ignore_errors=True)
            self.swaps += 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self.join(60)
