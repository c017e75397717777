"""macOS."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from typing import Final

from launcher.host import Endpoint, native_arch
from launcher.host._places import of_macos as guest_path
from launcher.host._places import other_of_macos as other_guest_paths
from launcher.host._posix import (
    PROGRAM_SUFFIX,
    SHELL,
    archive_mode,
    become,
    can_have,
    clean_path,
    close_hint,
    command_script,
    detach_options,
    docker_plugin_folders,
    docker_socket,
    endpoints,
    home,
    is_private,
    lock,
    lock_taken,
    make_private,
    raise_soft_limit,
    real_path,
    replace,
    ssh_agent,
    sync_folder,
    terminal,
    tied_options,
    told_path,
    write_protect,
)
from launcher.host.streams import Stream

__all__ = [
    "PROGRAM_SUFFIX",
    "SHELL",
    "accelerator_hint",
    "accelerators",
    "archive_mode",
    "become",
    "clean_path",
    "bind_exclusively",
    "birth_time",
    "can_have",
    "clone",
    "close_hint",
    "command_script",
    "detach_options",
    "docker_plugin_folders",
    "docker_socket",
    "editor",
    "ENDPOINT",
    "endpoints",
    "folded",
    "guest_path",
    "home",
    "folder_watch",
    "is_private",
    "libraries",
    "listen_reserved",
    "local_path",
    "lock",
    "lock_taken",
    "make_private",
    "more_shares",
    "NAME",
    "no_acceleration",
    "other_guest_paths",
    "port_denied",
    "process_stamp",
    "qemu_folders",
    "qemu_hint",
    "raise_descriptor_limit",
    "real_path",
    "replace",
    "reserve",
    "run_base",
    "ssh_agent",
    "sync_folder",
    "terminal",
    "tied_options",
    "told_path",
    "user_docker_sockets",
    "wait_hangup",
    "write_protect",
]

NAME: Final = "macos"
ENDPOINT: Final[Endpoint] = "unix"
_TIMEOUT: Final = 20
_LOW: Final = 1024
_OPEN_MAX: Final = 10240  # sys/syslimits.h; setrlimit(2) refuses more where the hard limit is none


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
    ours = Path(sys.prefix).parent / "qemu" / "bin"  # beside the Python of our own package
    return [ours, Path("/opt/homebrew/bin"), Path("/usr/local/bin"), Path("/opt/local/bin"), Path("/run/current-system/sw/bin")]


def virtiofsd_folders() -> list[Path]:
    return []


def qemu_hint() -> str:
    return "brew install qemu"


def editor() -> list[str]:
    return ["vi"]


def run_base() -> Path:
    # $TMPDIR alone is about 50 bytes here, and a socket path must stay under 104.
    return Path(f"/tmp/wherry-{os.getuid()}")  # noqa: S108  made 0700 and its owner checked


def more_shares() -> list[str]:
    # Of the user alone, as launchd gives it; /tmp is everybody's.
    own = os.environ.get("TMPDIR", "")
    return [own.rstrip("/")] if guest_path(own).startswith("/var/folders/") else []


def local_path(path: str) -> str:
    return path


def folded(path: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFC", path).casefold()


def user_docker_sockets() -> list[Path]:
    # Docker Desktop's; its /var/run/docker.sock is a link to it, and often outlives it.
    return [Path(home()) / ".docker" / "run" / "docker.sock"]


def process_stamp(pid: int) -> str | None:
    import psutil

    # The kernel notes the time of day when a process begins, and does not change it when the clock is set.
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.6f}"
    except psutil.Error:
        return None


def processor() -> str:
    from launcher import proc
    from launcher.errors import WherryError

    try:
        return proc.run(["sysctl", "machdep.cpu.brand_string", "hw.optional"], timeout=_TIMEOUT)
    except WherryError:
        return ""


def widen(pipe: int) -> None: ...


def read_ahead(path: Path) -> None: ...


def clone(source: int, target: int) -> bool:  # noqa: ARG001
    return False


def birth_time(found: object, at: tuple[int, bytes] | int | None) -> int | None:  # noqa: ARG001
    seconds = getattr(found, "st_birthtime", None)
    return None if seconds is None else round(seconds * 1_000_000)


def wait_hangup(stream: Stream) -> bool:  # noqa: ARG001
    # poll(2) here may say POLLHUP for an end of input alone, which would cut off `echo | docker run -i`.
    return False


def bind_exclusively(listening: socket.socket, address: str, port: int) -> None:
    if port < _LOW and _is_loopback(address):
        # Since macOS 10.14 anybody may bind a low port, on the wildcard address only. Peers are looked at when they connect.
        address = "::" if ":" in address else "0.0.0.0"  # noqa: S104
    try:
        listening.bind((address, port))
    except OSError as error:
        # SO_REUSEADDR is needed for what lingers, and would put us in front of a program that listens on the wildcard address:
        # so only where nobody listens.
        if (
            error.errno != errno.EADDRINUSE
            or listening.type != socket.SOCK_STREAM
            or _listened(listening.family, address, port)
        ):
            raise
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")


def _listened(family: int, address: str, port: int) -> bool:
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104
    with socket.socket(family, socket.SOCK_STREAM) as stream:
        stream.settimeout(1)
        return stream.connect_ex((own, port)) == 0


reserve = bind_exclusively


def listen_reserved(made: socket.socket, backlog: int) -> None:
    made.listen(backlog)


def raise_descriptor_limit() -> None:
    raise_soft_limit(_OPEN_MAX)


def port_denied(proto: str, port: int) -> tuple[str, str]:  # noqa: ARG001
    return f"ports below {_LOW} of one address are root's on this computer", "Publish it on 127.0.0.1 or 0.0.0.0"


def folder_watch() -> None:
    """FSEvents and ReadDirectoryChangesW watch trees, and a library does that."""
