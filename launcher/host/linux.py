"""Linux."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from launcher.host import Endpoint, native_arch
from launcher.host._posix import detach_options, lock, make_private, terminal

__all__ = [
    "ENDPOINT",
    "NAME",
    "accelerator_hint",
    "accelerators",
    "detach_options",
    "editor",
    "lock",
    "make_private",
    "qemu_folders",
    "qemu_hint",
    "run_base",
    "terminal",
]

NAME: Final = "linux"
ENDPOINT: Final[Endpoint] = "unix"


def accelerators(guest_arch: str) -> list[str]:
    usable = guest_arch == native_arch() and os.access("/dev/kvm", os.R_OK | os.W_OK)
    return ["kvm", "tcg"] if usable else ["tcg"]


def accelerator_hint(guest_arch: str) -> str:
    if guest_arch != native_arch():
        return f"an {guest_arch} machine on an {native_arch()} computer is always emulated"
    if not os.path.exists("/dev/kvm"):
        return "/dev/kvm is missing: turn on virtualization in the firmware (VT-x or SVM), or nested virtualization in a VM"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm is closed to you: sudo usermod -aG kvm $USER, then log in again"
    return "/dev/kvm opens, but a guest does not start on it"


def qemu_folders() -> list[Path]:
    return [Path("/usr/bin"), Path("/usr/local/bin"), Path("/usr/libexec"), Path("/home/linuxbrew/.linuxbrew/bin")]


def qemu_hint() -> str:
    return "Debian, Ubuntu: sudo apt-get install qemu-system-x86 qemu-utils; Fedora: sudo dnf install qemu-kvm qemu-img"


def editor() -> list[str]:
    # Debian's sensible-editor follows the user's and the system's choice; vi is on every system.
    return next(([name] for name in ("sensible-editor", "nano", "vi") if shutil.which(name)), ["vi"])


def run_base() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and Path(runtime).is_dir() and os.stat(runtime).st_uid == os.getuid():
        return Path(runtime) / "wherry"
    return Path(f"/tmp/wherry-{os.getuid()}")  # noqa: S108  made 0700 and its owner checked
