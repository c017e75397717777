"""What `doctor` looks at on this computer: QEMU and what it needs, room, sockets, time, other engines."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from launcher import control, host, proc, store
from launcher.config import GIB, MIB, MachineConfig, format_size
from launcher.errors import WherryError
from launcher.machine.checks import Check, failure, ok, warning
from launcher.qemu import probe
from launcher.qemu.command import family
from launcher.store import MachineDir

# An image of a usual size and its container still fit.
_ROOM: Final = 5 * GIB
_LEAST_ROOM: Final = 500 * MIB
# First release without CVE-2021-3592 to 3595: before it a container reads memory of QEMU through slirp's own services.
_OLDEST_SLIRP: Final = (4, 6, 0)
_ASK_SLIRP: Final = """
import ctypes, sys
ask = ctypes.CDLL(sys.argv[1]).slirp_version_string
ask.restype = ctypes.c_char_p
print(ask().decode())
"""
_TIMEOUT: Final = 20
_ENGINE_WITHIN: Final = 60.0  # seconds, under emulation and load
_CLOCK_OFF: Final = 5.0  # seconds
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def qemu(config: MachineConfig | None) -> Iterator[Check]:
    """QEMU, its tool, libslirp and the accelerators for this machine, or for a machine as it would be made."""
    arch = config.arch if config else host.native_arch()
    found = probe.find(arch, config.qemu if config else "", keep=False)
    yield ok("qemu", f"{found.text} ({found.program}), for {arch}")
    yield ok("qemu-img", str(probe.find_img()))
    yield from _slirp(found)
    yield from _accelerator(found, arch, config.accel if config else "auto")


def virtiofs(config: MachineConfig | None) -> Iterator[Check]:
    """The virtiofsd of a machine that wants one, tried out on an empty folder."""
    if config and config.shares.virtiofs:
        from launcher import virtiofs

        virtiofs.check()
        yield ok("virtiofs", f"{virtiofs.find().path} works; which shares it serves: wherry share list")


def _accelerator(found: probe.Qemu, arch: str, wanted: str) -> Iterator[Check]:
    why = host.current().no_acceleration(arch)
    rungs = probe.ladder(wanted, arch, found, None)
    fast = [family(rung) for rung in rungs if family(rung) != "tcg"]
    why = why or (host.current().no_acceleration_by(found.program) if fast else None)
    worked = probe.remembered(found, arch)
    slow = f"machines of {arch} are emulated, 5-8 times slower"
    if wanted == "tcg":
        yield ok("acceleration", "off, by accel = tcg in machine.toml")
    elif why:
        reason, step = why
        if step:
            yield warning("acceleration", f"{slow}: {reason}", step)
        else:
            yield ok("acceleration", f"none: {reason}")
    elif not fast:
        yield warning("acceleration", f"{slow}: this QEMU is built without one", host.current().qemu_hint())
    elif worked is None:
        yield ok("acceleration", f"{fast[0]} opens; no start with this QEMU is known yet that used it")
    elif family(worked) == "tcg":
        again = f"remove {store.cache_dir() / 'qemu.json'} to have it tried again"
        yield warning("acceleration", f"{slow}: {fast[0]} opens, but the last guest did not start on it", again)
    else:
        yield ok("acceleration", f"{family(worked)}, which worked at the last start")


def _slirp(found: probe.Qemu) -> Iterator[Check]:
    """The library behind QEMU's user network; asked itself, in a process of its own, since nothing else tells its version."""
    if "user" not in proc.run([found.program, "-netdev", "help"], timeout=_TIMEOUT).split():
        yield failure("libslirp", "this QEMU has no user network, without which machines have none", host.current().qemu_hint())
        return
    libraries = [path for path in host.current().libraries(found.program) if "slirp" in path.name]
    if not libraries:
        yield ok("libslirp", "its version cannot be known here: it is part of QEMU itself, or the libraries cannot be listed")
        return
    try:
        text = proc.run([sys.executable, "-I", "-c", _ASK_SLIRP, libraries[0]], timeout=_TIMEOUT).strip()
        version = tuple(int(part) for part in text.split(".")[:3])
    except (WherryError, ValueError):
        yield ok("libslirp", f"{libraries[0]}, which does not tell its version")
        return
    if version < _OLDEST_SLIRP:
        oldest = ".".join(map(str, _OLDEST_SLIRP))
        yield warning(
            "libslirp", f"{text} is older than {oldest} (CVE-2021-3592 to CVE-2021-3595)", "upgrade libslirp, or QEMU"
        )
    else:
        yield ok("libslirp", text)


def terminal() -> Iterator[Check]:
    """What is wrong with the one that we were called in."""
    if host.current().tied():
        yield warning(
            "terminal", "it lets no program outlive it: machines started here end with it", "start machines in another one"
        )
    if told := host.current().no_terminal():
        what, _, remedy = told.partition(": ")
        yield warning("terminal", what, remedy)


def folders() -> Iterator[Check]:
    """Whether what wherry keeps can be written, and the room there."""
    import psutil

    seen: set[int] = set()
    for name, folder in (("home", store.home()), ("cache", store.cache_dir())):
        there = _existing(folder)
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            yield failure(name, f"{folder} cannot be written", "set WHERRY_HOME to a folder that can be")
            continue
        yield ok(name, str(folder))
        device = there.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield _room(folder, psutil.disk_usage(str(there)).free)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _room(folder: Path, free: int) -> Check:
    text = f"{free / 1e9:.1f} GB free for {folder}"
    if free >= _ROOM:
        return ok("space", text)
    step = "make room: wherry docker system prune frees what the machine does not need"
    return failure("space", text, step) if free < _LEAST_ROOM else warning("space", text, step)


def memory(config: MachineConfig | None, running: bool) -> Iterator[Check]:
    import psutil

    found = psutil.virtual_memory()
    text = f"{found.available / GIB:.1f}G of {found.total / GIB:.1f}G available"
    if config is None or running:
        yield ok("memory", text)
    elif config.memory > found.total:
        yield failure("memory", f"{text}; the machine wants {format_size(config.memory)}", "wherry config unset memory")
    elif config.memory > found.available:
        step = "close other programs, or: wherry config set memory SIZE"
        yield warning("memory", f"{text}; the machine wants {format_size(config.memory)}", step)
    else:
        yield ok("memory", f"{text}; the machine wants {format_size(config.memory)}")


def sockets(directory: MachineDir) -> Iterator[Check]:
    """Their folder, and whether the longest path fits the system's 104 bytes."""
    if host.current().ENDPOINT != "unix":
        yield ok("sockets", "not used on this system")
        return
    longest = max(len(os.fsencode(path)) for path in (directory.control_socket, directory.serial_socket, directory.qmp_socket))
    text = f"{longest} of at most {store.LONGEST_SOCKET} bytes, in {directory.run_dir}"
    base = directory.run_dir.parent
    if longest > store.LONGEST_SOCKET:
        yield failure("sockets", f"their paths are too long: {text}", "set XDG_RUNTIME_DIR to a folder with a short path")
    elif base.exists() and not host.current().is_private(base):
        yield failure("sockets", f"{base} is not yours alone", f"remove {base}, or set XDG_RUNTIME_DIR to a folder of yours")
    else:
        yield ok("sockets", text)


def proxies() -> Iterator[Check]:
    """What the download of an ISO will use."""
    named = [name for name in _PROXIES if os.environ.get(name) or os.environ.get(name.lower())]
    values = [f"{name}={os.environ.get(name) or os.environ[name.lower()]}" for name in named]
    yield ok("proxy", ", ".join(values) if values else "none is set in the environment")


def clock(built: str, directory: MachineDir | None) -> Iterator[Check]:
    """This computer's clock against the day on which the ISO was built, and against the machine's."""
    now = time.time()
    text = datetime.fromtimestamp(now).astimezone().isoformat(" ", "seconds")
    try:
        behind = built and now < datetime.fromisoformat(built).timestamp() - 86400
    except ValueError:
        behind = False
    if behind:
        yield failure("clock", f"{text}, which is before the ISO was built ({built[:10]})", "set this computer's clock")
        return
    yield ok("clock", text)
    if directory is not None:
        yield from _guest_clock(directory)


def _guest_clock(directory: MachineDir) -> Iterator[Check]:
    import json

    before = time.time()
    answer = control.ask_within(_ENGINE_WITHIN, directory.control_socket, "engine", method="GET", path="/info")
    took = time.time() - before
    told = json.loads(answer["body"])
    there = datetime.fromisoformat(told["SystemTime"]).timestamp()
    off = max(before - there, there - before - took, 0.0)  # the answer was made some time in between
    yield ok("engine", f"Docker {told.get('ServerVersion')} answers in {took:.1f} s")
    if off > _CLOCK_OFF:
        yield warning("machine's clock", f"{off:.0f} s away from this computer's", "wherry restart")
    else:
        yield ok("machine's clock", "agrees with this computer's")
