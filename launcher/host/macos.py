"""macOS."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

from launcher.host import Endpoint, native_arch
from launcher.host._posix import (
    detach_options,
    docker_socket,
    is_private,
    lock,
    lock_taken,
    make_private,
    sync_folder,
    terminal,
)

__all__ = [
    "ENDPOINT",
    "NAME",
    "accelerator_hint",
    "accelerators",
    "clone",
    "detach_options",
    "docker_socket",
    "editor",
    "is_private",
    "libraries",
    "lock",
    "lock_taken",
    "make_private",
    "no_acceleration",
    "process_stamp",
    "qemu_folders",
    "qemu_hint",
    "run_base",
    "sync_folder",
    "terminal",
    "wait_hangup",
]

NAME: Final = "macos"
ENDPOINT: Final[Endpoint] = "unix"
_TIMEOUT: Final = 20


def accelerators(guest_arch: str) -> list[str]:
    return ["hvf", "tcg"] if guest_arch == native_arch() else ["tcg"]


def accelerator_hint(guest_arch: str) -> str:
    found = no_acceleration(guest_arch)
    if found:
        return ": ".join(filter(None, found))
    return "QEMU may lack the entitlement com.apple.security.hypervisor: brew reinstall qemu"


def no_acceleration(guest_arch: str) -> tuple[str, str] | None:
    from launcher import proc
    from launcher.errors import WherryError

    if guest_arch != native_arch():
        return f"an {guest_arch} machine on an {native_arch()} computer is always emulated", ""
    try:
        supported = proc.run(["sysctl", "-n", "kern.hv_support"], timeout=_TIMEOUT).strip()
    except WherryError:
        return None
    if supported == "0":
        return "this computer has no Hypervisor.framework (kern.hv_support is 0)", "in a virtual machine: turn on nesting"
    return None


def libraries(program: Path) -> list[Path]:
    import re

    from launcher import proc
    from launcher.errors import WherryError

    try:
        listing = proc.run(["otool", "-L", program], timeout=_TIMEOUT)
    except WherryError:  # otool comes with Xcode's command line tools
        return []
    return [Path(path) for path in re.findall(r"^\s+(/\S+)", listing, re.MULTILINE)]


def qemu_folders() -> list[Path]:
    return [Path("/opt/homebrew/bin"), Path("/usr/local/bin"), Path("/opt/local/bin"), Path("/run/current-system/sw/bin")]


def qemu_hint() -> str:
    return "brew install qemu"


def editor() -> list[str]:
    return ["vi"]


def run_base() -> Path:
    # $TMPDIR alone is about 50 bytes here, and a socket path must stay under 104.
    return Path(f"/tmp/wherry-{os.getuid()}")  # noqa: S108  made 0700 and its owner checked


def process_stamp(pid: int) -> str | None:
    import psutil

    # The kernel notes the time of day when a process begins, and does not change it when the clock is set.
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.6f}"
    except psutil.Error:
        return None


def clone(source: int, target: int) -> bool:  # noqa: ARG001
    return False


def wait_hangup(stream: socket.socket) -> bool:  # noqa: ARG001
    # poll(2) here may say POLLHUP for an end of input alone, which would cut off `echo | docker run -i`.
    return False
