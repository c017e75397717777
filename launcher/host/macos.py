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
    SIGNALS_END,
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
    joined,
    lock,
    lock_taken,
    long_path,
    make_private,
    no_terminal,
    raise_soft_limit,
    real_path,
    remove_tree,
    rename,
    replace,
    rewritten_words,
    ssh_agent,
    sync_folder,
    terminal,
    tied,
    tied_options,
    told_path,
    when_session_ends,
    write_protect,
)
from launcher.host._privacy_macos import guarded_folders, withheld
from launcher.host._signed_macos import no_acceleration_by
from launcher.host.streams import Stream

__all__ = [
    "accelerator_hint", "accelerators", "archive_mode", "become", "bind_exclusively", "birth_time", "can_have", "clean_path",
    "clone", "close_hint", "command_script", "detach_options", "docker_plugin_folders", "docker_socket", "editor", "ENDPOINT",
    "endpoints", "folded", "folder_watch", "guarded_folders", "guest_path", "home", "is_private", "joined", "libraries",
    "listen_reserved", "local_path", "lock", "lock_taken", "long_path", "make_private", "more_shares", "NAME",
    "no_acceleration", "no_acceleration_by", "no_terminal", "other_guest_paths", "port_denied", "process_stamp",
    "PROGRAM_SUFFIX", "qemu_folders", "qemu_hint", "raise_descriptor_limit", "real_path", "remove_tree", "rename", "replace",
    "reserve", "rewritten_words", "run_base", "SHELL", "SIGNALS_END", "ssh_agent", "sync_folder", "terminal", "tied",
    "tied_options", "told_path", "user_docker_sockets", "wait_hangup", "when_session_ends", "withheld", "write_protect",
]  # fmt: skip

NAME: Final = "macos"
ENDPOINT: Final[Endpoint] = "unix"
_TIMEOUT: Final = 20
_LOW: Final = 1024
_OPEN_MAX: Final = 10240  # sys/syslimits.h; setrlimit(2) refuses more where the hard limit is none


def accelerators(guest_arch: str) -> list[str]:
    if guest_arch != native_arch():
        return ["tcg"]
    # `host` takes over what a new processor has, which an older QEMU or macOS may not know ("Property 'host-arm-cpu.sme' not
    # found": QEMU 9.2 on an M4, lima issue 3032); a plain model does without.
    return ["hvf", "hvf,cpu=cortex-a57", "tcg"] if guest_arch == "arm64" else ["hvf", "tcg"]


def accelerator_hint(guest_arch: str, program: Path | None = None) -> str:
    found = no_acceleration(guest_arch) or (no_acceleration_by(program) if program else None)
    if found:
        return ": ".join(filter(None, found))
    return "a guest does not start on Hypervisor.framework with this QEMU: a newer one may help"


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
    wheel = ', or: pip install "wherry[qemu]"' if native_arch() == "arm64" else ""
    return f"brew install qemu{wheel}"


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
