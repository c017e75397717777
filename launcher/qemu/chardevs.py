"""How QEMU's monitor and serial line are reached, as words of its command line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UnixListener:
    """A monitor or serial line behind a listening unix socket; the keeper made it and QEMU inherits the descriptor."""

    fd: int


@dataclass(frozen=True)
class Stdio:
    """The monitor on QEMU's standard streams: Windows, which passes no descriptors, and no locks. So QEMU opens the machine's
    lock file as another output, for itself alone as it opens all of them there (chardev/char-win.c)."""

    lock: str


@dataclass(frozen=True)
class OutputFile:
    """A serial line that only tells: a file, or a pipe that is there already and can be written as one."""

    path: str


Channel = UnixListener | Stdio | OutputFile


def channel_args(monitor: Channel, serial: Channel) -> list[str]:
    """The words of QEMU's command line."""
    return [
        "-chardev", chardev("qmp", monitor),
        "-mon", "chardev=qmp,mode=control",
        "-chardev", chardev("serial", serial),
        "-serial", "chardev:serial",
        *(["-chardev", chardev("lock", OutputFile(monitor.lock))] if isinstance(monitor, Stdio) else []),
    ]  # fmt: skip


def chardev(name: str, channel: Channel) -> str:
    match channel:
        case UnixListener(fd):
            return f"socket,id={name},fd={fd},server=on,wait=off"
        case OutputFile(path):
            return f"file,id={name},path={quoted(path)}"
        case Stdio():
            return f"stdio,id={name},signal=off"


def quoted(path: str) -> str:
    """The path as a value in QEMU's name=value lists, where a comma stands doubled."""
    return path.replace(",", ",,")
