"""What a maintainer needs, in one file: by a list of what goes in, secrets taken out. Keys, seeds, logins and tokens never."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from launcher import __version__, images, store
from launcher.config_keys import ENGINE_KEYS
from launcher.errors import NoSuchMachine, Refused, Usage, WherryError
from launcher.machine import autostart
from launcher.machine.checks import Check
from launcher.machine.redact import MASK, redact, redact_values
from launcher.store import MachineDir

# Of the caller's environment, and nothing else.
_ENVIRONMENT: Final = (
    "WHERRY_HOME", "WHERRY_MACHINE", "WHERRY_MIRRORS", "XDG_RUNTIME_DIR", "DOCKER_HOST", "DOCKER_CONTEXT", "LANG", "LC_ALL",
    "TERM", "SHELL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
)  # fmt: skip
_PACKAGES: Final = ("click", "paramiko", "platformdirs", "psutil", "pycdlib", "tomlkit", "tqdm", "requests", "truststore")
# Whole starts fit; the logs themselves are bounded to more.
_TAIL: Final = 256 << 10

Files = dict[str, bytes]


def collect(name: str, checks: list[Check]) -> Files:
    """The files of the bundle: name, content. What cannot be read is told in place of its content."""
    directory = store.machine(name)
    token = _token(directory)
    values: dict[str, Callable[[], Any]] = {
        "doctor.json": lambda: [asdict(check) for check in checks],
        "versions.json": _versions,
        "environment.json": lambda: {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ},
        "qemu.json": lambda: json.loads((store.cache_dir() / "qemu.json").read_text(encoding="utf-8")),
        "machine.json": lambda: _machine(directory),
        "state.json": lambda: _state(directory),
        "iso.json": lambda: images.by_sha(directory.read_config().iso).manifest,
    }
    logs = (
        directory.serial_log, directory.qemu_log, directory.keeper_log, directory.shares_log, directory.virtiofsd_log,
        directory.path / autostart.LOG,
    )  # fmt: skip
    sources: dict[str, Callable[[], bytes]] = {file: partial(_json, value, token) for file, value in values.items()}
    sources |= {log.name: partial(_tail, log, token) for log in logs}
    files = {file: _read(source) for file, source in sources.items()}
    return {file: data for file, data in files.items() if data is not None}


def packer(target: Path, *, force: bool) -> Callable[[str, Files], bytes]:
    """How to write the bundle, by its name. Raises Usage for another name, Refused when the file is there and not `force`."""
    packers = {".zip": _zip, ".tar.gz": _tar, ".tgz": _tar}
    pack = next((packer for ending, packer in packers.items() if target.name.lower().endswith(ending)), None)
    if pack is None:
        raise Usage(f"{target.name!r} is no name for a bundle: NAME.zip or NAME.tar.gz.")
    if os.path.lexists(target) and not force:
        raise Refused(f"{target} is there already.", hint="another name, or --force")
    return pack


def write(target: Path, files: Files, *, force: bool) -> None:
    """Write the bundle whole or not at all, for the user alone. Raises as `packer`, and WherryError."""
    pack = packer(target, force=force)
    try:
        store.write_private(target, pack(target.name.split(".")[0], files))
    except OSError as error:
        raise WherryError(f"{target} cannot be written: {error.strerror}.") from error


def _zip(folder: str, files: Files) -> bytes:
    import zipfile

    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(f"{folder}/{name}", data)
    return output.getvalue()


def _tar(folder: str, files: Files) -> bytes:
    import tarfile

    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(data))
    return output.getvalue()


def _read(source: Callable[[], bytes]) -> bytes | None:
    try:
        return source()
    except (FileNotFoundError, NoSuchMachine):
        return None
    except (WherryError, OSError, ValueError) as error:
        return f"(cannot be read: {getattr(error, 'message', error)})\n".encode()


def _json(value: Callable[[], Any], token: str) -> bytes:
    return json.dumps(redact_values(value(), token), indent=1, default=str).encode() + b"\n"


def _versions() -> dict[str, Any]:
    return {
        "wherry": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "encoding": sys.stdout.encoding,
        "packages": {name: _version(name) for name in _PACKAGES},
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine(directory: MachineDir) -> dict[str, Any]:
    """machine.toml's values without its comments, of the engine's texts those under keys that dockerd is known to have; and
    names, sizes and modes of the machine's files."""
    import tomllib

    values = tomllib.loads(directory.config_file.read_text(encoding="utf-8"))
    engine = values.get("engine")
    if isinstance(engine, dict):
        values["engine"] = {key: value if key in ENGINE_KEYS or not _has_text(value) else MASK for key, value in engine.items()}
    files = {
        str(path.relative_to(directory.path)): [path.lstat().st_size, oct(path.lstat().st_mode)]
        for path in sorted(directory.path.rglob("*"))
    }
    return {"machine.toml": values, "files": {name.replace(os.sep, "/"): found for name, found in files.items()}}


def _has_text(value: Any) -> bool:
    return not isinstance(value, (bool, int, float))


def _state(directory: MachineDir) -> dict[str, Any]:
    """All but the token, which tells our QEMU from others."""
    values = json.loads(directory.state_file.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    values.pop("token", None)
    return values


def _token(directory: MachineDir) -> str:
    try:
        return directory.read_state().token
    except WherryError:
        return ""


def _tail(file: Path, token: str) -> bytes:
    with file.open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL))
        return redact(log.read().decode("utf-8", "replace"), token).encode()
