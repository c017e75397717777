"""macOS."""

from __future__ import annotations

import os
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

NAME: Final = "macos"
ENDPOINT: Final[Endpoint] = "unix"


def accelerators(guest_arch: str) -> list[str]:
    return ["hvf", "tcg"] if guest_arch == native_arch() else ["tcg"]


def accelerator_hint(guest_arch: str) -> str:
    if guest_arch != native_arch():
        return f"an {guest_arch} machine on an {native_arch()} computer is always emulated"
    return "QEMU may lack the entitlement com.apple.security.hypervisor: brew reinstall qemu"


def qemu_folders() -> list[Path]:
    return [Path("/opt/homebrew/bin"), Path("/usr/local/bin"), Path("/opt/local/bin"), Path("/run/current-system/sw/bin")]


def qemu_hint() -> str:
    return "brew install qemu"


def editor() -> list[str]:
    return ["vi"]


def run_base() -> Path:
    # $TMPDIR alone is about 50 bytes here, and a socket path must stay under 104.
    return Path(f"/tmp/wherry-{os.getuid()}")  # noqa: S108  made 0700 and its owner checked
