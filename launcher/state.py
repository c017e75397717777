"""What runs now: the content of a machine's state.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from launcher import __version__, release
from launcher.errors import Damaged

STATE_VERSION: Final = 1
_FORMER: Final = frozenset({"qemu_start"})  # keys of earlier releases


@dataclass(frozen=True)
class State:
    """What runs now, for commands that come later. Written before QEMU is started, so that nothing is ever unknown."""

    status: str = "stopped"  # starting, running, stopping, stopped, failed
    token: str = ""  # also in QEMU's -name: tells ours from a process that got the pid later
    qemu_pid: int = 0
    qemu_stamp: str = ""  # host.process_stamp: tells it from a later process with its pid
    keeper_pid: int = 0
    ssh_port: int = 0  # on 127.0.0.1
    accel: str = ""
    started: float = 0.0  # when the start began, seconds since the epoch
    timeline: list[list[Any]] = field(default_factory=list)  # [stage, seconds since the start began]
    engine_version: str = ""
    restarts: dict[str, int] = field(default_factory=dict)  # named cause -> how often a start was repeated for it
    last_error: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what the guest or the start wants the user to know
    virtiofs: dict[str, list[Any]] = field(default_factory=dict)  # id of a share -> [pid, stamp] of its virtiofsd; 0: not known
    paused: str = ""  # why QEMU holds the guest, as a sentence
    wherry: str = ""  # the version that wrote this; empty before 0.1.0 told it

    def to_json(self) -> dict[str, Any]:
        return {"version": STATE_VERSION, **asdict(self), "wherry": __version__}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Keys that are missing have their defaults: the file may be an older wherry's. Raises Refused for a newer one's,
        Damaged for what no wherry wrote."""
        if not isinstance(data, dict):
            raise Damaged("it is no state of a machine.")
        values = {key: value for key, value in data.items() if key not in _FORMER}
        version, wherry = values.pop("version", None), values.get("wherry")
        unknown = set(values) - set(cls.__dataclass_fields__)
        newer = isinstance(version, int) and version > STATE_VERSION
        if newer or (unknown and release.is_newer(str(wherry or ""))):
            raise release.refused("state.json", wherry)
        if version != STATE_VERSION:
            raise Damaged(f"its version is {version!r}.")
        if unknown:
            raise Damaged(f"nobody knows {', '.join(sorted(unknown))}.")
        empty = cls()
        for key, value in values.items():
            if not _is_like(value, getattr(empty, key)):
                raise Damaged(f"{key} = {str(value)[:40]!r}.")
        if not all(isinstance(entry, list) and list(map(type, entry)) in _ENTRIES for entry in values.get("timeline", [])):
            raise Damaged("its timeline is none.")
        served = values.get("virtiofs", {}).values()
        if not all(isinstance(entry, list) and list(map(type, entry)) == [int, str] for entry in served):
            raise Damaged("its virtiofs is none.")
        return cls(**values)


_ENTRIES: Final = ([str, float], [str, int])


def _is_like(value: object, default: object) -> bool:
    return type(value) is type(default) or (isinstance(default, float) and type(value) is int)
