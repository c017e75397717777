"""Windows."""

from __future__ import annotations

import ntpath
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from launcher.host import Endpoint, Terminal, native_arch
from launcher.host._job_windows import detach_options, tied, tied_options
from launcher.host._locks_windows import lock, lock_taken
from launcher.host._msys_windows import no_terminal, rewritten_words
from launcher.host._patience_windows import remove_tree, rename, replace
from launcher.host._places import clean_windows as clean_path
from launcher.host._places import long_windows as long_path
from launcher.host._places import of_windows as guest_path
from launcher.host._places import other_of_windows as other_guest_paths
from launcher.host._places import real_windows as real_path
from launcher.host._places import to_windows as local_path
from launcher.host._places import windows_has as can_have
from launcher.host._private_windows import close_hint, is_private, make_private
from launcher.host._session_windows import when_session_ends
from launcher.host.streams import Endpoints, Stream

__all__ = [
    "can_have", "clean_path", "close_hint", "detach_options", "guest_path", "is_private", "local_path", "lock", "lock_taken",
    "long_path", "make_private", "no_terminal", "other_guest_paths", "real_path", "remove_tree", "rename", "replace",
    "rewritten_words", "tied", "tied_options", "when_session_ends",
]  # fmt: skip

NAME: Final = "windows"
PROGRAM_SUFFIX: Final = ".exe"
SHELL: Final = "powershell"
ENDPOINT: Final[Endpoint] = "stdio"
SIGNALS_END: Final = False

_NETSH_SECONDS: Final = 10
_TURN_ON: Final = "DISM /online /Enable-Feature /FeatureName:HypervisorPlatform /All"


def accelerators(guest_arch: str) -> list[str]:
    # irqchip off avoids lost injections, and hangs with several CPUs on some versions: both are rungs of their own.
    if guest_arch != native_arch():
        return ["tcg"]
    if guest_arch == "arm64":
        return ["whpx", "tcg"]
    return ["whpx,kernel-irqchip=off", "whpx", "tcg"]


def accelerator_hint(guest_arch: str, program: Path | None = None) -> str:  # noqa: ARG001
    found = no_acceleration(guest_arch)
    if found:
        return ": ".join(filter(None, found))
    return f'the Windows feature "Windows Hypervisor Platform" may be off: {_TURN_ON}'


def no_acceleration(guest_arch: str) -> tuple[str, str] | None:
    if guest_arch != native_arch():
        return f"an {guest_arch} machine on an {native_arch()} computer is always emulated", ""
    # The feature brings this library; without it QEMU's whpx cannot load.
    library = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "WinHvPlatform.dll"
    if not library.exists():
        return 'the Windows feature "Windows Hypervisor Platform" is off', _TURN_ON
    return None


def no_acceleration_by(program: Path) -> None:
    """A program needs no leave of its own here."""


def libraries(program: Path) -> list[Path]:
    # QEMU's installers put all libraries beside the program.
    return sorted(program.parent.glob("*.dll"))


def guarded_folders() -> list[str]:
    return []


def withheld(path: str) -> None:
    """Who may see a folder is told by its rights alone."""


def qemu_folders() -> list[Path]:
    programs = os.environ.get("PROGRAMFILES", r"C:\Program Files")
    local = os.environ.get("LOCALAPPDATA", "")
    folders = [
        Path(sys.prefix).parent / "qemu",
        Path(programs) / "qemu",
        Path(r"C:\msys64\ucrt64\bin"),
        Path(r"C:\msys64\mingw64\bin"),
    ]
    return [*folders, Path(local) / "Programs" / "qemu"] if local else folders


def virtiofsd_folders() -> list[Path]:
    return []


def qemu_hint() -> str:
    return 'winget install SoftwareFreedomConservancy.QEMU, or: pip install "wherry[qemu]"'


def editor() -> list[str]:
    return ["notepad"]


def run_base() -> Path:
    return Path(tempfile.gettempdir()) / "wherry"


def endpoints() -> Endpoints:
    from launcher.host.pipes import NamedPipes

    return NamedPipes()


def process_stamp(pid: int) -> str | None:
    import psutil

    # The kernel notes the time of day when a process begins, and does not change it when the clock is set.
    try:
        return f"{psutil.Process(pid).create_time():.6f}"
    except psutil.Error:
        return None


def write_protect(path: Path) -> None:
    """Nothing: a read-only file cannot be removed here, neither by us nor by the user."""


def told_path(path: Path, folder: Path) -> str:
    # QEMU opens files by the code page, which lacks most letters; the folder that it works in is the system's own business.
    try:
        return ntpath.relpath(path, folder)
    except ValueError:  # on another drive
        return os.fspath(path)


def sync_folder(folder: Path) -> None:
    """NTFS keeps its names in a journal; folders cannot be opened for writing here."""


def terminal() -> Terminal:
    from launcher.host.terminal_windows import WindowsTerminal

    return WindowsTerminal()


def processor() -> str:
    return os.environ.get("PROCESSOR_IDENTIFIER", "")


def widen(pipe: int) -> None: ...


def read_ahead(path: Path) -> None: ...


def clone(source: int, target: int) -> bool:  # noqa: ARG001
    return False


def docker_plugin_folders() -> list[Path]:
    # docker/cli, cli-plugins/manager/manager_windows.go
    bases = (os.environ.get("PROGRAMDATA"), os.environ.get("PROGRAMFILES"))
    return [Path(base) / "Docker" / "cli-plugins" for base in bases if base]


def become(program: Path, argv: Sequence[str], environment: Mapping[str, str]) -> int:
    from launcher import proc

    # Ctrl-C reaches every program of the console: it is the client's to decide about.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return proc.interactive([program, *argv[1:]], env=environment)


def docker_socket() -> Path:
    return Path(r"\\.\pipe\docker_engine")


def ssh_agent(environment: Mapping[str, str]) -> str | None:  # noqa: ARG001
    return None  # a named pipe, which comes with the engine's


def home() -> str:
    return str(Path.home())


def more_shares() -> list[str]:
    return []


def joined(folder: str, path: str) -> str:
    return ntpath.join(folder, path)  # also of C:x, in a folder of that drive


def folded(path: str) -> str:
    return path.lower()  # NTFS keeps the forms of accents apart


def user_docker_sockets() -> list[Path]:
    return []


def command_script(comment: str, argv: Sequence[str], environment: Mapping[str, str]) -> str | None:  # noqa: ARG001
    return None


def archive_mode(mode: int) -> int:
    # As docker's own client (moby, pkg/archive/archive_windows.go, chmodTarEntry): there is no bit here that says "a program".
    return mode & 0o755 | 0o111


def birth_time(found: object, at: tuple[int, bytes] | int | None) -> int | None:  # noqa: ARG001
    # Until Python 3.12 st_ctime is the time of creation here.
    nanoseconds = getattr(found, "st_birthtime_ns", None) or getattr(found, "st_ctime_ns", None)
    return None if nanoseconds is None else int(nanoseconds) // 1000


def wait_hangup(stream: Stream) -> bool:  # noqa: ARG001
    return False


def bind_exclusively(listening: socket.socket, address: str, port: int) -> None:
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)  # type: ignore[attr-defined,unused-ignore]
    listening.bind((address, port))


reserve = bind_exclusively


def listen_reserved(made: socket.socket, backlog: int) -> None:
    made.listen(backlog)


def raise_descriptor_limit() -> None:
    """Handles have no such limit here."""


def port_denied(proto: str, port: int) -> tuple[str, str]:
    """Windows answers "access denied" for the ranges that Hyper-V and others have reserved, and for what another program has
    bound exclusively."""
    from launcher import proc
    from launcher.errors import WherryError

    command = ["netsh", "int", "ipv4", "show", "excludedportrange", proto]
    try:
        reserved = reserved_ranges(proc.run(command, timeout=_NETSH_SECONDS))
    except WherryError:
        reserved = []
    for first, last in reserved:
        if first <= port <= last:
            again = f"{' '.join(command)} lists them; as administrator: net stop winnat, then net start winnat"
            return f"Windows has reserved the ports {first}-{last}", again
    return "another program has it for itself alone", "End that program"


def reserved_ranges(text: str) -> list[tuple[int, int]]:
    """First and last port of each line of numbers that netsh prints; its words differ by language."""
    return [(int(first), int(last)) for first, last in re.findall(r"^\s*(\d+)\s+(\d+)\s*\*?\s*$", text, re.MULTILINE)]


def folder_watch() -> None:
    """FSEvents and ReadDirectoryChangesW watch trees, and a library does that."""
