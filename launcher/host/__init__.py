"""The operating system behind one small Protocol; nothing else in the launcher asks which one it is."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from launcher.host.streams import Endpoints, Stream

Endpoint = Literal["unix", "stdio"]


class Terminal(Protocol):
    """The terminal, pipes or files that we were started with. Read, written and resized from different threads."""

    RESIZES: frozenset[int]  # the signals after which the size may be another; empty: it must be looked at now and then

    def read(self, count: int) -> bytes:
        """Standard input, as it comes; empty at its end."""

    def write(self, descriptor: int, data: bytes) -> None:
        """All of `data` to standard output (1) or error (2). Raises OSError when nobody reads it."""

    def size(self) -> tuple[int, int]:
        """Rows and columns."""

    def raw(self) -> AbstractContextManager[None]:
        """Every key as its bytes, Ctrl-C too, and nothing echoed; as it was before when it ends, and while we are stopped."""

    def signals(self) -> dict[int, str]:
        """Signals that a proxied command must see, by number, with their names on Linux without SIG."""


class HostModule(Protocol):
    """What differs between Linux, macOS and Windows. Each is a module with these names (`linux`, `macos`, `windows`)."""

    NAME: str
    PROGRAM_SUFFIX: str  # what the names of programs end in
    SHELL: str  # that of who does not tell which one is in use, as `wherry env` calls it
    ENDPOINT: Endpoint  # how QEMU's monitor and serial line are reached
    SIGNALS_END: bool  # that the user's session ends is told to every program by a signal

    def accelerators(self, guest_arch: str) -> list[str]:
        """QEMU's `-accel` names to try, best first; always ends with tcg."""

    def accelerator_hint(self, guest_arch: str, program: Path | None = None) -> str:
        """Why there may be no hardware acceleration here, with that QEMU, and what turns it on."""

    def no_acceleration(self, guest_arch: str) -> tuple[str, str] | None:
        """Why there is no hardware acceleration, and the one thing that turns it on; None when nothing speaks against it."""

    def no_acceleration_by(self, program: Path) -> tuple[str, str] | None:
        """As `no_acceleration`, of that QEMU."""

    def libraries(self, program: Path) -> list[Path]:
        """The shared libraries that a program loads; empty when they cannot be known."""

    def is_private(self, path: Path) -> bool:
        """Whether no other user can read what is there, less those who administer the computer."""

    def close_hint(self, paths: Sequence[Path]) -> str:
        """The command that closes them to other users."""

    def qemu_folders(self) -> list[Path]:
        """Where QEMU is when it is not on PATH."""

    def virtiofsd_folders(self) -> list[Path]:
        """Where virtiofsd is when it is not on PATH; empty where there is none."""

    def qemu_hint(self) -> str:
        """How to install QEMU here."""

    def run_base(self) -> Path:
        """A short folder, private to the user, for sockets."""

    def detach_options(self) -> dict[str, Any]:
        """Keywords of Popen for a process that outlives the terminal."""

    def tied_options(self) -> dict[str, Any] | None:
        """The same where the terminal lets no process outlive it, and the system says so; None where it has no such thing."""

    def tied(self) -> bool:
        """Whether what we start ends with our terminal in any case, as far as the system tells."""

    def when_session_ends(self, reason: str, told: Callable[[], None]) -> None:
        """Have `told` called, in another thread, when the user logs off or the computer is shut down, and hold that up until
        this process has ended, as long as system and user wait, who read the `reason`. Nothing where a signal tells it."""

    def endpoints(self) -> Endpoints:
        """Where programs of this user meet."""

    def lock(self, path: Path, *, wait: bool) -> int | None:
        """A descriptor that holds the exclusive lock on `path` until it is closed; None when taken and not `wait`."""

    def lock_taken(self, path: Path) -> bool:
        """Whether somebody holds that lock; False when the file is not there. Looking disturbs nobody, and writes nothing."""

    def process_stamp(self, pid: int) -> str | None:
        """What tells a process from a later one with its pid, and stays when the clock is set; None when there is no such
        process, or only what a dead one leaves until its parent looks."""

    def processor(self) -> str:
        """What tells this computer's processor from others, with all that a guest under hardware acceleration may use of it."""

    def widen(self, pipe: int) -> None:
        """Let the pipe hold a megabyte, where the system can: whoever reads and who writes are woken less often."""

    def read_ahead(self, path: Path) -> None:
        """Have the file in memory soon, where the system can be asked for that, without waiting for it. Raises nothing."""

    def replace(self, source: Path, target: Path) -> None:
        """As os.replace, and where a file that a program has open keeps its name: not before it is tried for a second."""

    def rename(self, source: Path, target: Path) -> None:
        """As os.rename, with the same patience."""

    def remove_tree(self, folder: Path) -> None:
        """As shutil.rmtree, with the same patience. Raises OSError."""

    def write_protect(self, path: Path) -> None:
        """Let nobody write to the file by mistake, where it can be removed all the same."""

    def told_path(self, path: Path, folder: Path) -> str:
        """How a program that works in `folder` is told of a file: as a name that its C library opens."""

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder last, as fsync does with the content of a file."""

    def clone(self, source: int, target: int) -> bool:
        """Make the empty file of descriptor `target` share the content of `source`; False when the file system cannot."""

    def can_have(self, name: str) -> bool:
        """Whether a file here can have that name, of one part, and be opened by it."""

    def archive_mode(self, mode: int) -> int:
        """The permission bits that a file or folder with these has in an archive for a container."""

    def birth_time(self, found: object, at: tuple[int, bytes] | int | None) -> int | None:
        """When the file with this stat was made, in microseconds; where the stat does not tell, by its name in the folder of a
        descriptor, or its own descriptor. None when it cannot be known."""

    def terminal(self) -> Terminal:
        """Our own standard streams."""

    def no_terminal(self) -> str:
        """Why what the user takes for a terminal is none to us, and the remedy; "" where there is no such thing."""

    def rewritten_words(self, words: Sequence[str]) -> str:
        """Which word of ours the user's shell has made another path of, and the remedy; "" for none."""

    def editor(self) -> list[str]:
        """The text editor of the system, as words, for a user who has chosen none."""

    def wait_hangup(self, stream: Stream) -> bool:
        """After the end of its input: wait until the other side has closed the socket altogether, or we have. False at once
        where the system does not tell that from an end of input alone."""

    def bind_exclusively(self, listening: socket.socket, address: str, port: int) -> None:
        """Bind a socket so that no other program can bind the same, and that a connection of an earlier one which lingers is no
        hindrance. Raises OSError as bind does."""

    def reserve(self, made: socket.socket, address: str, port: int) -> None:
        """Bind a socket that does not listen yet so that no other program can bind the same. Raises OSError as bind does."""

    def listen_reserved(self, made: socket.socket, backlog: int) -> None:
        """Let it listen, from then on as one of bind_exclusively. Raises OSError."""

    def raise_descriptor_limit(self) -> None:
        """Let this process, and those that it starts, have as many files and sockets open as the system gives to anybody."""

    def port_denied(self, proto: str, port: int) -> tuple[str, str]:
        """Why the system refuses us that port, and the system's own remedy."""

    def docker_plugin_folders(self) -> list[Path]:
        """Where docker looks for its plugins beside the user's own folder."""

    def become(self, program: Path, argv: Sequence[str], environment: Mapping[str, str]) -> int:
        """Let the program take our place, on our terminal and in our folder; its exit code where it can only be our child."""

    def docker_socket(self) -> Path:
        """Where docker's clients look when nobody told them."""

    def user_docker_sockets(self) -> list[Path]:
        """Where docker's clients and libraries look too, and a user may put something; empty where there is no such place."""

    def ssh_agent(self, environment: Mapping[str, str]) -> str | None:
        """The socket of the ssh agent that programs with this environment use; None when there is none."""

    def command_script(self, comment: str, argv: Sequence[str], environment: Mapping[str, str]) -> str | None:
        """The text of a program that becomes argv with its own words behind; None where no such text is a program."""

    def home(self) -> str:
        """The user's home, as the user says it."""

    def more_shares(self) -> list[str]:
        """Folders that go with the home: what programs of the user make there is meant for containers too."""

    def guarded_folders(self) -> list[str]:
        """Folders of the user's that the system shows to a program with his leave only, and that are there."""

    def withheld(self, path: str) -> tuple[str, str] | None:
        """That it keeps that folder, or the folder of that file, from us, and how the user gives leave. Looking may ask him."""

    def real_path(self, path: str) -> str:
        """The whole path without links and detours, of what is not there as well."""

    def clean_path(self, path: str) -> str:
        """The same path without `.`, `..` and doubled separators; links stay."""

    def joined(self, folder: str, path: str) -> str:
        """A path that is said from that folder."""

    def long_path(self, path: str) -> str:
        """A whole path as the system opens it however long it is."""

    def guest_path(self, path: str) -> str:
        """Where the machine has a folder of this computer, given by its whole path."""

    def local_path(self, path: str) -> str:
        """The way back: a path as the machine says it, on this computer."""

    def other_guest_paths(self, path: str) -> tuple[str, ...]:
        """Other names by which the machine has it too, of a path as guest_path gives it."""

    def folded(self, path: str) -> str:
        """A path so that two are equal when the usual file system here may take them for one."""

    def folder_watch(self) -> Any:
        """What tells of changes in single folders (a Source of keeper/shares); None where only whole trees can be watched.
        Raises OSError when the system has none left for us."""

    def make_private(self, folder: Path) -> None:
        """Make the folder, closed to other users; raises Refused when it is there and belongs to somebody else."""


@cache
def current() -> HostModule:
    """The module of the system that we run on."""
    if sys.platform == "win32":
        from launcher.host import windows as module
    elif sys.platform == "darwin":
        from launcher.host import macos as module
    else:
        from launcher.host import linux as module
    return cast(HostModule, module)


def native_arch() -> str:
    """This computer's architecture in Debian's words."""
    import platform

    machine = platform.machine().lower()
    return {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(machine, machine)
