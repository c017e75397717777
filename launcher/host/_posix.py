"""What Linux and macOS share."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shlex
import signal
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from launcher.errors import MissingOnHost, Refused
from launcher.host import Terminal
from launcher.host.streams import Endpoints

PROGRAM_SUFFIX: Final = ""
SHELL: Final = "bash"
SIGNALS_END: Final = True
_DESCRIPTORS: Final = 65536  # programs that close all that may be open (before exec) take longer with more


def detach_options() -> dict[str, Any]:
    return {"start_new_session": True, "close_fds": True}


def tied_options() -> None:
    return None


def tied() -> bool:
    return False


def when_session_ends(reason: str, told: Callable[[], None]) -> None:
    """SIGTERM or SIGHUP tells it."""


def endpoints() -> Endpoints:
    from launcher.host.sockets import UnixSockets

    return UnixSockets()


def lock(path: Path, *, wait: bool) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def lock_taken(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared: two who look at the same time do not take each other for a holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that knows no such thing (some network and FUSE ones)
            raise
    finally:
        os.close(descriptor)


def replace(source: Path, target: Path) -> None:
    os.replace(source, target)


def rename(source: Path, target: Path) -> None:
    os.rename(source, target)


def remove_tree(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


def write_protect(path: Path) -> None:
    path.chmod(0o444)


def told_path(path: Path, folder: Path) -> str:  # noqa: ARG001
    return os.fspath(path)


def make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A folder in /tmp can be made by anybody first: a link or a foreign owner is refused, not used.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise Refused(f"{folder} belongs to somebody else.", hint="Set XDG_RUNTIME_DIR to a folder of yours.")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


def is_private(path: Path) -> bool:
    found = path.stat()
    return found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077


def close_hint(paths: Sequence[Path]) -> str:
    return f"chmod go= {shlex.join(map(str, paths))}"


def can_have(name: str) -> bool:  # noqa: ARG001
    return True


def archive_mode(mode: int) -> int:
    return mode


def raise_soft_limit(where_none: int) -> None:
    """Of descriptors: to the hard limit, or to `where_none` without one, and no further than _DESCRIPTORS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(where_none if hard == resource.RLIM_INFINITY else hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # a kernel that has a limit of its own: we go on with what we have
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def no_terminal() -> str:
    return ""


def rewritten_words(words: Sequence[str]) -> str:  # noqa: ARG001
    return ""


def home() -> str:
    try:
        return os.path.abspath(Path.home())  # noqa: PTH100  links stay
    except RuntimeError:
        nobody = f"user {os.getuid()}, whom this computer has no entry for"
        raise MissingOnHost(f"there is no home of {nobody}: HOME is not set.", hint="Set HOME to a folder of yours.") from None


def user_name() -> str:
    """The name of who calls, their number when they have none: in a container any number can be a user's."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError: Python 3.13 and later
        return str(os.getuid())


def real_path(path: str) -> str:
    return os.path.realpath(path)


def clean_path(path: str) -> str:
    return os.path.normpath(path)


def joined(folder: str, path: str) -> str:
    return f"{folder}/{path}"


def long_path(path: str) -> str:
    return path


def docker_socket() -> Path:
    return Path("/var/run/docker.sock")


def command_script(comment: str, argv: Sequence[str], environment: Mapping[str, str]) -> str | None:
    lines = ["#!/bin/sh", *(f"# {line}" for line in comment.splitlines())]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    return "\n".join([*lines, f'exec {shlex.join(argv)} "$@"', ""])


def ssh_agent(environment: Mapping[str, str]) -> str | None:
    return environment.get("SSH_AUTH_SOCK") or None


def docker_plugin_folders() -> list[Path]:
    # docker/cli, cli-plugins/manager/manager_unix.go
    bases = ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")
    return [Path(base) / "docker" / "cli-plugins" for base in bases]


def become(program: Path, argv: Sequence[str], environment: Mapping[str, str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Python ignores it, and what is ignored stays so in the next program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execve(program, list(argv), dict(environment))  # noqa: S606  no shell is wanted


def terminal() -> Terminal:
    from launcher.host.terminal_posix import PosixTerminal

    return PosixTerminal()
