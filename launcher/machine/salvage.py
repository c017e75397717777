"""A machine.toml for a machine that has lost its own: from the copy of the last good start, from the lines of the damaged
file that can be read, from the data disk, and our defaults for the rest."""

from __future__ import annotations

import tomllib
from typing import Any

from launcher import config, host, images, saved
from launcher.config import GIB, MachineConfig
from launcher.errors import Refused, WherryError
from launcher.images import cache
from launcher.machine.create import default_cpus, default_memory
from launcher.report import Reporter
from launcher.store import MachineDir


def rebuilt(directory: MachineDir, report: Reporter) -> tuple[MachineConfig, list[str]]:
    """The config, and where its values come from, for the user. Raises Refused for a newer wherry's, IsoProblem when there is
    no ISO that it could name."""
    sources = []
    values = _good(directory)
    if values:
        sources.append("as at its last good start")
    readable = _readable(directory, values)
    if readable:
        sources.append(f"{', '.join(sorted(readable))} out of the damaged file")
    values |= readable
    if not values:
        sources.append("our defaults")
    if "disk" not in values and (size := _disk_size(directory)):
        values["disk"] = config.format_size(size)
        sources.append("the size of its disk")
    values.setdefault("arch", host.native_arch())
    values.setdefault("cpus", default_cpus())
    values.setdefault("memory", config.format_size(default_memory()))
    if "iso" not in values:
        values["iso"] = _likely_iso(values["arch"], report)
        sources.append("the newest ISO here")
    return config.from_toml_values({**values, "version": config.CONFIG_VERSION}), sources


def _good(directory: MachineDir) -> dict[str, Any]:
    try:
        values = tomllib.loads(directory.good_config_file.read_text(encoding="utf-8"))
        config.from_toml_values(values)
    except Refused:
        raise
    except (OSError, ValueError, WherryError):
        return {}
    return _plain(values)


def _readable(directory: MachineDir, base: dict[str, Any]) -> dict[str, Any]:
    """What can be read of the file, part by part, and can be a value. Raises Refused when a newer wherry wrote it."""
    try:
        text = directory.config_file.read_bytes().decode("utf-8", "replace")
    except OSError:
        return {}
    found: dict[str, Any] = {}
    for part in _parts(text):
        try:
            values = tomllib.loads(part)
        except (ValueError, RecursionError):
            continue
        for key, value in _plain(values).items():
            if isinstance(value, dict):  # one line of a table
                value = {**found.get(key, {}), **value}
            if _fits({**_NEEDED, **base, **found, key: value}):
                found[key] = value
    return {key: value for key, value in found.items() if value != base.get(key)}


_NEEDED: dict[str, Any] = {"arch": host.native_arch(), "cpus": 1, "memory": config.format_size(GIB), "iso": ""}


def _parts(text: str) -> list[str]:
    """Single lines, and whole tables where they can be read whole, else their lines one by one."""
    parts, table = [], ""
    block: list[str] = []

    def close() -> None:
        whole = "\n".join([table, *block])
        try:
            tomllib.loads(whole)
            parts.append(whole)
        except (ValueError, RecursionError):
            parts.extend(f"{table}\n{line}" for line in block)

    for line in text.splitlines():
        if line.lstrip().startswith("["):
            close()
            table, block = line, []
        else:
            block.append(line)
    close()
    return parts


def _fits(values: dict[str, Any]) -> bool:
    try:
        config.from_toml_values({**values, "version": config.CONFIG_VERSION})
    except (WherryError, AttributeError, TypeError):
        return False
    return True


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in ("version", "wherry")}


def _disk_size(directory: MachineDir) -> int:
    from launcher import disks
    from launcher.qemu import probe

    disk = directory.suspended_disk if saved.is_suspended(directory) else directory.data_disk
    try:
        return disks.info(disk, probe.find_img()).virtual_size
    except WherryError:
        return 0


def _likely_iso(arch: str, report: Reporter) -> str:
    kept = [(float(source.get("imported", 0)), iso.sha256) for iso, source in cache.everything() if iso.arch == arch]
    if kept:
        return max(kept)[1]
    return images.resolve(arch, None, report).sha256


def iso_again(wanted: MachineConfig, report: Reporter) -> None:
    """Have the machine's own ISO in the cache once more. Raises IsoProblem when this wherry has no way to get that one."""
    images.restore(wanted.iso, wanted.arch, report)
    cache.by_sha(wanted.iso)  # raises: with what is wrong
