"""Linux."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
from pathlib import Path
from typing import Final

from launcher.host import Endpoint, native_arch
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
    user_name,
    when_session_ends,
    write_protect,
)
from launcher.host.inotify import Inotify
from launcher.host.streams import Stream

__all__ = [
    "accelerator_hint", "accelerators", "archive_mode", "become", "bind_exclusively", "birth_time", "can_have", "clean_path",
    "clone", "close_hint", "command_script", "detach_options", "docker_plugin_folders", "docker_socket", "editor", "ENDPOINT",
    "endpoints", "folded", "folder_watch", "guest_path", "home", "is_private", "joined", "libraries", "listen_reserved",
    "local_path", "lock", "lock_taken", "long_path", "make_private", "more_shares", "NAME", "no_acceleration",
    "no_acceleration_by", "no_terminal", "other_guest_paths", "port_denied", "process_stamp", "PROGRAM_SUFFIX",
    "qemu_folders", "qemu_hint", "raise_descriptor_limit", "real_path", "remove_tree", "rename", "replace", "reserve",
    "rewritten_words", "run_base", "SHELL", "SIGNALS_END", "ssh_agent", "sync_folder", "terminal", "tied", "tied_options",
    "told_path", "user_docker_sockets", "virtiofsd_folders", "wait_hangup", "when_session_ends", "write_protect",
]  # fmt: skip

_FICLONE: Final = 0x40049409  # linux/fs.h, _IOW(0x94, 9, int)
NAME: Final = "linux"
ENDPOINT: Final[Endpoint] = "unix"
_TIMEOUT: Final = 20


def accelerators(guest_arch: str) -> list[str]:
    usable = guest_arch == native_arch() and os.access("/dev/kvm", os.R_OK | os.W_OK)
    return ["kvm", "tcg"] if usable else ["tcg"]


def accelerator_hint(guest_arch: str, program: Path | None = None) -> str:  # noqa: ARG001
    found = no_acceleration(guest_arch)
    return ": ".join(filter(None, found)) if found else "/dev/kvm opens, but a guest does not start on it"


def no_acceleration(guest_arch: str) -> tuple[str, str] | None:
    if guest_arch != native_arch():
        return f"an {guest_arch} machine on an {native_arch()} computer is always emulated", ""
    if not os.path.exists("/dev/kvm"):
        return "/dev/kvm is missing", _how_to_get_kvm()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return _closed_kvm(_group_of("/dev/kvm"), user_name())
    return None


def no_acceleration_by(program: Path) -> None:
    """A program needs no leave of its own here."""


def _closed_kvm(group: str, user: str) -> tuple[str, str]:
    if user in _members(group):
        return f"/dev/kvm is closed to you: you are in the group {group} since your last login", "log in again"
    if user.isdecimal():
        return f"/dev/kvm is closed to you: user {user}, who has no name here", f"start wherry with the group {group}"
    return "/dev/kvm is closed to you", f"sudo usermod -aG {group} $USER, then log in again"


def _how_to_get_kvm() -> str:
    import re

    try:
        flags = set(re.findall(r"\b(?:vmx|svm|hypervisor)\b", Path("/proc/cpuinfo").read_text(encoding="utf-8")))
    except OSError:
        flags = set()
    if flags & {"vmx", "svm"}:
        return f"sudo modprobe {'kvm_intel' if 'vmx' in flags else 'kvm_amd'}"
    if "hypervisor" in flags:
        return "this computer is a virtual machine itself: turn on nested virtualization in its hypervisor"
    return "turn on virtualization in the firmware (VT-x or SVM)"


def _group_of(path: str) -> str:
    import grp

    try:
        return grp.getgrgid(os.stat(path).st_gid).gr_name
    except KeyError:
        return "kvm"


def _members(group: str) -> list[str]:
    import grp

    try:
        return grp.getgrnam(group).gr_mem
    except KeyError:
        return []


def libraries(program: Path) -> list[Path]:
    import re

    from launcher import proc
    from launcher.errors import WherryError

    try:
        listing = proc.run(["ldd", program], timeout=_TIMEOUT)
    except WherryError:
        return []
    return [Path(path) for path in re.findall(r"=> (/\S+)", listing)]


def guarded_folders() -> list[str]:
    return []


def withheld(path: str) -> None:
    """Who may see a folder is told by its rights alone."""


def qemu_folders() -> list[Path]:
    return [Path("/usr/bin"), Path("/usr/local/bin"), Path("/usr/libexec"), Path("/home/linuxbrew/.linuxbrew/bin")]


def virtiofsd_folders() -> list[Path]:
    # Its own package's place, QEMU's for its own of up to 7.2, Arch's.
    return [Path("/usr/libexec"), Path("/usr/lib/qemu"), Path("/usr/lib")]


def qemu_hint() -> str:
    return "Debian, Ubuntu: sudo apt-get install qemu-system-x86 qemu-utils; Fedora: sudo dnf install qemu-kvm qemu-img"


def editor() -> list[str]:
    # Debian's sensible-editor follows the user's and the system's choice; vi is on every system.
    import shutil

    return next(([name] for name in ("sensible-editor", "nano", "vi") if shutil.which(name)), ["vi"])


def run_base() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and Path(runtime).is_dir() and os.stat(runtime).st_uid == os.getuid():
        return Path(runtime) / "wherry"
    return Path(f"/tmp/wherry-{os.getuid()}")  # noqa: S108  made 0700 and its owner checked


def more_shares() -> list[str]:
    return []


def guest_path(path: str) -> str:
    return path


local_path = folded = guest_path


def other_guest_paths(path: str) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def user_docker_sockets() -> list[Path]:
    # The first is Docker Desktop's, the second rootless Docker's; testcontainers and other libraries try both.
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return [Path(home()) / ".docker" / "run" / "docker.sock", *([Path(runtime) / "docker.sock"] if runtime else [])]


def process_stamp(pid: int) -> str | None:
    # psutil's creation time is reckoned from the clock: setting it moves every process. The ticks since boot do not move.
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # proc(5): the name, field 2, may hold blanks and brackets; after its last bracket come state (3) and start time (22).
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot[:8]}-{fields[19]}"


# What /proc/cpuinfo calls them on x86 and arm64.
_PROCESSOR: Final = ("model name", "stepping", "flags", "CPU implementer", "CPU part", "Features")


def processor() -> str:
    first = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").partition("\n\n")[0]
    found = [line.partition(":") for line in first.splitlines()]
    return "; ".join(value.strip() for name, _, value in found if name.strip() in _PROCESSOR)


def widen(pipe: int) -> None:
    with contextlib.suppress(OSError):  # more than /proc/sys/fs/pipe-max-size
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)


def read_ahead(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # btrfs, XFS and bcachefs can
        return False
    return True


def birth_time(found: object, at: tuple[int, bytes] | int | None) -> int | None:  # noqa: ARG001
    from launcher.host import _birth  # with ctypes, which few programs of ours need

    return None if at is None else _birth.birth_time(at)


def wait_hangup(stream: Stream) -> bool:
    # unix(7) says POLLHUP only when both directions are closed; a peer that has closed its output alone is POLLRDHUP.
    poll = select.poll()
    poll.register(stream, 0)  # type: ignore[arg-type]
    poll.poll()
    return True


def bind_exclusively(listening: socket.socket, address: str, port: int) -> None:
    # Here it lets nobody bind what another listens on; it only passes over connections that linger (socket(7)). For UDP it
    # would share the port.
    if listening.type == socket.SOCK_STREAM:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((address, port))


def reserve(made: socket.socket, address: str, port: int) -> None:
    # With SO_REUSEADDR on both, two may bind a port as long as nobody listens.
    made.bind((address, port))


def listen_reserved(made: socket.socket, backlog: int) -> None:
    # For connections that will linger: they have it from the socket that accepted them.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.listen(backlog)


def raise_descriptor_limit() -> None:
    raise_soft_limit(65536)


def port_denied(proto: str, port: int) -> tuple[str, str]:  # noqa: ARG001
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text(encoding="ascii"))
    except (OSError, ValueError):
        first = 1024
    return f"ports below {first} are root's on this computer", f"sudo sysctl net.ipv4.ip_unprivileged_port_start={port}"


def folder_watch() -> Inotify:
    return Inotify()
