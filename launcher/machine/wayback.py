"""The ISO of a machine changes, and the way back: rollback.json.

A change is one rename of machine.toml; what leads back from it is written before. Whenever it is cut short, the machine has the
old ISO or the new one, both are in the cache and named in files that `iso prune` reads, and `settle` ends what was begun.

rollback.json, one object:

    format     1
    iso        SHA-256 of the ISO before
    version    of the wherry that ISO is of; engine: of its engine; when: of the change, ISO 8601, UTC
    to         SHA-256 of the ISO that the change led to: while machine.toml names `iso` itself, the change was not made
    before     the record that this one took the place of, without a `before` of its own, or null
    copy       name of the copy of the data disk that was made before the change, or empty
    restoring  while a way back that puts the copy back is going on: the name under which the newer disk is kept
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Self

from launcher import __version__, diskcopy, files, host, release
from launcher.errors import Refused, WherryError
from launcher.images import Iso
from launcher.machine import enginedata
from launcher.report import Reporter
from launcher.store import MachineDir

FORMAT: Final = 1


@dataclass(frozen=True)
class Record:
    """One change of the ISO, seen from after it; the content of rollback.json."""

    iso: str
    to: str
    version: str = ""
    engine: str = ""
    when: str = ""
    copy: str = ""
    restoring: str = ""
    before: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, data: object) -> Self:
        if not isinstance(data, dict):
            raise WherryError("rollback.json is damaged.")
        if isinstance(data.get("format"), int) and data["format"] > FORMAT:
            raise release.refused("rollback.json", data.get("wherry"))
        known = {item.name for item in fields(cls)}
        try:
            return cls(**{key: value for key, value in data.items() if key in known})
        except TypeError as error:
            raise WherryError(f"rollback.json is damaged: {error}.") from error

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "wherry": __version__, **asdict(self)}


def read(directory: MachineDir) -> Record | None:
    """What leads back from the ISO that the machine has, or None. Raises Refused for a newer wherry's file, WherryError for a
    damaged one."""
    record = _read(directory)
    if record is None or record.to == directory.read_config().iso:
        return record
    # The change was not made, or undone already.
    return Record.from_json(record.before) if record.before else None


def _read(directory: MachineDir) -> Record | None:
    try:
        return Record.from_json(json.loads(directory.rollback_file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WherryError(f"{directory.rollback_file} cannot be read: {error}") from error


def _write(directory: MachineDir, record: Record | None) -> None:
    if record is None:
        directory.rollback_file.unlink(missing_ok=True)
    else:
        files.write_private(directory.rollback_file, json.dumps(record.to_json(), indent=1).encode())


def change(directory: MachineDir, old: dict[str, Any], new: Iso, copy: str) -> None:
    """Give the machine the ISO `new`. `old` is the manifest of the one before, `copy` the name of a copy of its disk, or empty.

    The caller holds the lock for starting it, and it does not run.
    """
    config = directory.read_config()
    before = read(directory)
    record = Record(
        iso=config.iso, to=new.sha256, version=str(old.get("version", "")), engine=enginedata.engine(old), when=_now(),
        copy=copy, before=asdict(replace(before, before=None)) if before else None,
    )  # fmt: skip
    _write(directory, record)
    directory.write_config(config.changed(iso=new.sha256))


def back(directory: MachineDir, record: Record, *, put_back: bool) -> str:
    """Give the machine the ISO before `record` again, with `put_back` its copy of the disk too; returns the name under which
    the newer disk is kept, or an empty text. The caller holds the lock for starting it, and it does not run."""
    if put_back:
        if not record.copy or not (directory.path / record.copy).exists():
            raise Refused(f"the copy {record.copy or 'of the data disk'} is not in {directory.path}.")
        aside = free_name(directory, f"data-after-{record.copy.removeprefix('data-before-').removesuffix('.qcow2')}")
        record = replace(record, restoring=aside)
        _write(directory, record)  # from here on it is done to the end, by whoever comes
    _finish(directory, record)
    return record.restoring


def settle(directory: MachineDir) -> None:
    """End a way back that was cut short. Before every start; the caller holds the lock for it, and the machine does not run."""
    files.sweep(directory.path)
    record = _read(directory)
    if record is not None and record.restoring:
        _finish(directory, record)


def cut_short(directory: MachineDir) -> bool:
    """Whether there is something for `settle` to end."""
    record = _read(directory)
    return record is not None and bool(record.restoring)


def _finish(directory: MachineDir, record: Record) -> None:
    """Each step finds out whether it was done before."""
    if record.restoring and (directory.path / record.copy).exists():
        aside = directory.path / record.restoring
        if not aside.exists():
            _keep(directory, aside)
        host.current().replace(directory.path / record.copy, directory.data_disk)
        host.current().sync_folder(directory.path)
    directory.write_config(directory.read_config().changed(iso=record.iso))
    _write(directory, Record.from_json(record.before) if record.before else None)


def _keep(directory: MachineDir, aside: Any) -> None:
    """A second name for the disk, so that data.qcow2 is there at every moment."""
    try:
        os.link(directory.data_disk, aside)
    except OSError:  # a file system without hard links: for a moment there is no data.qcow2, which `settle` knows how to mend
        if directory.data_disk.exists():
            host.current().rename(directory.data_disk, aside)


def free_name(directory: MachineDir, stem: str) -> str:
    """A name for a disk that is kept, which no file of the machine has yet."""
    stem = re.sub(r"[^A-Za-z0-9.+-]", "-", stem)
    names = [f"{stem}.qcow2", *(f"{stem}-{number}.qcow2" for number in range(2, 1000))]
    return next(name for name in names if not os.path.lexists(directory.path / name))


def copies(directory: MachineDir) -> list[tuple[str, int]]:
    """Disks that are kept beside the machine's own: name, and bytes on this computer."""
    found = [*directory.path.glob("data-before-*.qcow2"), *directory.path.glob("data-after-*.qcow2")]
    return [(path.name, diskcopy.size_of(path)) for path in sorted(found)]


def make_copy(directory: MachineDir, old: dict[str, Any], new: Iso, report: Reporter) -> str:
    """Copy the data disk before it is changed by `new`; the name of the copy. Nothing uses the disk."""
    version = enginedata.engine(new.manifest) or new.sha256[:12]
    name = free_name(directory, f"data-before-{version}")
    report.step("copy", f"{name}, the data disk as Docker {enginedata.engine(old) or '?'} left it")
    diskcopy.copy(directory.data_disk, directory.path / name, report)
    return name


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
